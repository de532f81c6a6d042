"""Whether the store has room for all that a plan writes: asked at the start, not answered by a failure at the end."""

from __future__ import annotations

import shutil
from pathlib import Path

from plimsoll_api.plan import Plan
from plimsoll_job.errors import UserError

#: Weights, the two moments of AdamW, the best weights so far: each as large as the weights.
TRAINING_COPIES = 4
#: Headers, graphs and records beside the weights.
SMALL_FILES_BYTES = 1 << 20


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


def check_room(plan: Plan, weights_bytes: int, directory: Path) -> None:
    """UserError when the file system of the directory has less room than the plan needs."""
    needed = bytes_needed(plan, weights_bytes)
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"spec.output.uri: {plan.output.uri} has {free} bytes free, the job needs up to {needed} bytes for "
            "artifacts and finished work; make room or name a larger store",
            reason="StoreFull",
        )
