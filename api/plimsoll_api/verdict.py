"""Verdict, check and judgement: what the gate answers."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from plimsoll_api.model import Model


class Verdict(StrEnum):
    """The answer of a check, and of the whole gate."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class Check(Model):
    """The answer to one limit."""

    name: str = Field(max_length=64, description="The limit, such as accuracy-maxRegression or latencyP95-maxRatio-1.")
    verdict: Verdict = Field(description="Pass, Fail or Inconclusive.")
    observed: str = Field(
        default="", max_length=128, description="What was measured, as people write it; empty when missing."
    )
    bound: str = Field(max_length=128, description="The limit, as people write it.")
    message: str = Field(max_length=512, description="One sentence that says why.")
    needed_samples: int | None = Field(
        default=None,
        description="For Inconclusive: the samples that would decide; for latency and throughput the processes.",
    )


class Judgement(Model):
    """The answer of the gate: Fail if any check fails, else Inconclusive if any is, else Pass."""

    verdict: Verdict
    message: str = Field(max_length=1024)
    checks: list[Check]
