"""What surrounds every training: threads, progress, notes, and the error when it diverges."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from plimsoll_job.cores import thread_count
from plimsoll_job.errors import UserError
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.record import six_digits

CURVE_POINTS = 50
NOT_REPEATABLE = (
    "This device computes a part of the training without a fixed order, so another run of the same plan may give "
    "another artifact."
)


@contextlib.contextmanager
def lesson(macs: int | None, batch_size: int, rate_field: str) -> Iterator[list[str]]:
    """Let torch use as many threads as such batches pay for, told by a sample's multiply-accumulates if known.

    The list holds the notes at the end.

    UserError that names the field of the learning rate when the training diverges.
    """
    notes: list[str] = []
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count(macs, batch_size))
    try:
        with warnings.catch_warnings(record=True) as warned:
            yield notes
        if any("deterministic" in str(one.message) for one in warned):
            notes.append(NOT_REPEATABLE)
    except FloatingPointError as error:
        raise UserError(f"{rate_field}: training diverged, {error}; try a smaller one") from error
    finally:
        torch.set_num_threads(before)


def tell_epochs(reporter: Reporter, stage: str, epochs: int) -> Callable[[int, float], None]:
    """Return what hears of each epoch."""
    return lambda epoch, loss: reporter.report(stage, epoch / epochs, f"epoch {epoch}/{epochs}, loss {loss:.6g}")


def thin(curve: Sequence[float]) -> list[float]:
    """Return the curve with at most CURVE_POINTS points of six digits, first and last among them."""
    count = min(len(curve), CURVE_POINTS)
    return [six_digits(curve[index]) for index in np.linspace(0, len(curve) - 1, count).round().astype(int)]
