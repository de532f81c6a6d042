"""What a refinement returns: the changed model, what was changed, and why the rest was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plimsoll_job.techniques.quantize.float_model import FloatModel


@dataclass(frozen=True)
class Refined:
    """A float model of the same layers; those that were changed and why others were not, by their nodes.

    Of each changed layer it tells the root mean square error that rounding is expected to leave in what it answers,
    over what it left before.
    """

    model: FloatModel
    changed: Mapping[str, float]
    left: Mapping[str, str]
