"""What becomes of batch norm's statistics where a step changes the layers before it."""

from __future__ import annotations

from enum import StrEnum


class BatchNorm(StrEnum):
    """Whether the running statistics are estimated anew."""

    REESTIMATE = "Reestimate"
    KEEP = "Keep"


#: What a step's field says of it.
DESCRIPTION = (
    "Statistics of batch norms whose inputs change: estimated anew from calibration or training data, or kept."
)
