"""What is left of tensors of which some positions go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from plimsoll_job.techniques.prune.groups import Gone
from plimsoll_job.techniques.prune.labels import Held, spanned


def left_shape(shape: Sequence[int], held: Held, gone: Gone) -> tuple[int, ...]:
    """Return the shape that is left of a tensor."""
    sizes = list(shape)
    for axis, positions in left_positions(held, gone).items():
        sizes[axis] = min(sizes[axis], len(positions))
    return tuple(sizes)


def left_positions(held: Held, gone: Gone) -> dict[int, torch.Tensor]:
    """Return the positions that are left along the axes of a tensor of which some go."""
    left = {}
    for labels in held.labels:
        is_gone = gone[labels.numpy()]
        if is_gone.any():
            for axis in spanned(labels):
                others = tuple(other for other in range(labels.ndim) if other != axis)
                left[axis] = torch.from_numpy(np.flatnonzero(~is_gone.all(axis=others)))
    return left
