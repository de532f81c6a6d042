"""Whether there is room for all that a plan writes: asked at the start, not answered by a failure at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from plimsoll_api.plan import Plan
from plimsoll_job.errors import UserError

#: Weights, the two moments of AdamW, the best weights so far: each as large as the weights.
TRAINING_COPIES = 4
#: Headers, graphs and records beside the weights.
SMALL_FILES_BYTES = 1 << 20
#: Of an output while it is checked and of the graphs between module and int8: never more at a time beside the outputs.
TEMPORARY_COPIES = 3


def bytes_needed(plan: Plan, weights_bytes: int) -> int:
    """Return the bytes that the plan writes at most, for a model of so many bytes of weights.

    The baseline's artifact, after each step an artifact and the candidate (twice where it is also a graph), and a
    training's newest checkpoint beside the one that it takes the place of; of a prune step in iterations also the
    candidate after the newest of them, beside the one before.
    """
    copies = len(plan.output.formats) + 2 * len(plan.steps) + sum(step.quantize is not None for step in plan.steps)
    if any(step.trains for step in plan.steps):
        copies += 2 * TRAINING_COPIES
    if any(step.prune and step.prune.recovery for step in plan.steps):
        copies += 2
    return copies * weights_bytes + (1 + 2 * len(plan.steps)) * SMALL_FILES_BYTES


def temporary_bytes_needed(plan: Plan, weights_bytes: int) -> int:
    """Return the bytes of temporary files that there are at most at one time."""
    return (len(plan.output.formats) + TEMPORARY_COPIES) * weights_bytes + SMALL_FILES_BYTES


def check_room(plan: Plan, weights_bytes: int, directory: Path) -> None:
    """UserError when the directory may not be written, or its disk, or that of temporary files, has too little room."""
    place = next(path for path in (directory, *directory.parents) if path.exists())
    temporary = Path(tempfile.gettempdir())
    needed, passing = bytes_needed(plan, weights_bytes), temporary_bytes_needed(plan, weights_bytes)
    if not os.access(place, os.W_OK):
        raise UserError(
            f"spec.output.uri: {plan.output.uri} may not be written; name a store that this pod's user may write, "
            "mounted for writing",
            reason="StoreReadOnly",
        )
    if place.stat().st_dev == temporary.stat().st_dev:
        needed += passing
    if (free := shutil.disk_usage(place).free) < needed:
        raise UserError(
            f"spec.output.uri: {plan.output.uri} has {free} bytes free, the job needs up to {needed} bytes for "
            "artifacts and finished work; make room or name a larger store",
            reason="StoreFull",
        )
    if (free := shutil.disk_usage(temporary).free) < passing:
        raise UserError(
            f"spec.runtime: {temporary} has {free} bytes free, the job needs up to {passing} bytes there for a model's "
            "files; have it run on a node with a larger disk, by resources.requests.ephemeral-storage or nodeSelector",
            reason="NodeFull",
        )
