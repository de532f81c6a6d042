"""What one run left open is settled: which positions of several axes go together, and what goes in groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from plimsoll_job.techniques.prune.atoms import NONE, Atoms
from plimsoll_job.techniques.prune.flow import Flow
from plimsoll_job.techniques.prune.labels import spanned


def settle(flow: Flow, written: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Join what must go together for what is left to be of whole blocks.

    Returns the labels, [groups, width], of what is normalised in groups of which as many can go from each: what one
    layer writes, by `written`, and where that is finer than whole groups.
    """
    for large, small, at in flow.partly:
        _settle_part(flow.atoms, large, small, at)
    _make_blocks(flow)
    lanes = flow.grouped
    while True:
        fine = [_goes_in_lanes(flow.atoms, rows, written) for rows, _ in lanes]
        for (rows, at), is_fine in zip(lanes, fine, strict=True):
            if not is_fine:
                why = f"they are normalised in groups in {at}"
                flow.atoms.join(rows.amax(1, keepdim=True), rows, why)
        lanes = [one for one, is_fine in zip(lanes, fine, strict=True) if is_fine]
        if all(fine):
            break
    _make_blocks(flow)
    return [rows for rows, _ in lanes]


def _goes_in_lanes(atoms: Atoms, rows: torch.Tensor, written: Sequence[torch.Tensor]) -> bool:
    groups, width = rows.shape
    classes = _classes(atoms, rows)
    found = set(classes.flatten().tolist())
    return (
        width >= groups
        and len(found) == classes.size
        and NONE not in found
        and any(found <= set(_classes(atoms, one).tolist()) for one in written if len(one) >= len(found))
    )


def _make_blocks(flow: Flow) -> None:
    for labels in _distinct(flow.blocks):
        _make_block(flow.atoms, labels)


def _settle_part(atoms: Atoms, large: torch.Tensor, small: torch.Tensor, at: str) -> None:
    """Labels of some axes met those of one of them: they go together, unless that axis is whole in the larger ones."""
    classes = _classes(atoms, large)
    if any(_is_constant(classes, axis) for axis in spanned(small)):
        atoms.keep(small, at)
    else:
        atoms.join(large, small, at)


def _make_block(atoms: Atoms, labels: torch.Tensor) -> None:
    """Let labels of several axes go along one of them only: along that of which most can go."""
    classes = _classes(atoms, labels)
    axes = [axis for axis in spanned(labels) if not _is_constant(classes, axis)]
    if len(axes) < 2:
        return
    kept = max(axes, key=lambda axis: (_count_apart(classes, axis), -axis))
    for axis in axes:
        if axis != kept:
            atoms.join(labels.amax(axis, keepdim=True), labels, "they are laid out in blocks with what stays")


def _count_apart(classes: NDArray[np.int64], axis: int) -> int:
    """Return how many positions of an axis go by themselves, where all along other axes go together."""
    rows = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
    firsts = {int(row[row != NONE].min()) for row in rows if (row != NONE).any()}
    return len(firsts)


def _classes(atoms: Atoms, labels: torch.Tensor) -> NDArray[np.int64]:
    numbers = labels.numpy()
    return np.where(numbers == NONE, NONE, atoms.classes(numbers.reshape(-1)).reshape(numbers.shape))


def _is_constant(classes: NDArray[np.int64], axis: int) -> bool:
    largest = classes.max(axis=axis, keepdims=True)
    return bool(((classes == largest) | (classes == NONE)).all())


def _distinct(labels: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the labels without those that are there already but for the order of their axes."""
    found: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}
    for one in labels:
        squeezed = one.squeeze()
        found.setdefault((tuple(squeezed.shape), hash(squeezed.numpy().tobytes())), squeezed)
    return list(found.values())
