"""A job whose pod dies between its steps ends in the same artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.jobimage.claims import DISTILL, INT8, Claims

from plimsoll_api.report import Summary
from plimsoll_job import compress as flow
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.shape import Applied
from plimsoll_job.techniques.table import TECHNIQUES

REDUNDANCY = {"prune": {"criterion": "Redundancy", "amount": "50%"}}
STEPS = [REDUNDANCY, DISTILL, REDUNDANCY, INT8]


class Killed(BaseException):
    """The pod dies."""


def die(*_: object) -> Applied:
    raise Killed


def compressed(claims: Claims) -> Summary:
    summary = flow.compress(claims.plan(STEPS), Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    return summary


@pytest.mark.slow
def test_a_killed_run_ends_in_the_artifact_of_an_undisturbed_one(
    claims: Claims, wine_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = compressed(Claims.copy_of(wine_source, tmp_path / "undisturbed"))
    for deadly in ("distill", "quantize"):
        with monkeypatch.context() as patched:
            patched.setitem(TECHNIQUES, deadly, die)
            with pytest.raises(Killed):
                compressed(claims)
    assert compressed(claims) == undisturbed
