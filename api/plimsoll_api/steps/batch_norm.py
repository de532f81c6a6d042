"""What becomes of batch norm's statistics where a step changes the layers before it."""

from __future__ import annotations

from enum import StrEnum


class BatchNorm(StrEnum):
    """Whether the running statistics are estimated anew."""

    REESTIMATE = "Reestimate"
    KEEP = "Keep"


#: What a step's field says of it.
DESCRIPTION = (
    "What becomes of the running statistics of batch norms whose inputs the step changes. Reestimate: from "
    "data.calibration, from data.train where there is no other, so that what each answers keeps the mean and the "
    "variance that it had; without data they stay, and a note says so. Keep: they stay."
)
