"""Which of many weights stay: the largest scores of each row, equal ones by their place, so alike on every machine."""

from __future__ import annotations

import torch


def keep_largest(scores: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Return where the scores [rows, columns] are not among the `dropped[row]` smallest of their row."""
    order = torch.argsort(scores, dim=1, stable=True)
    places = torch.arange(scores.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(scores, dtype=torch.bool).scatter_(1, order, places >= dropped[:, None])


def keep_share(scores: torch.Tensor, dropped_share: float) -> torch.Tensor:
    """Return where scores [rows, columns] stay when each row gives the same share, the whole as near as it can be."""
    rows, columns = scores.shape
    # What rounding takes from one row the next one gives.
    ends = torch.round(torch.arange(rows + 1, dtype=torch.float64) * (columns * dropped_share)).long()
    return keep_largest(scores, ends.diff().to(scores.device))


def keep_pattern(scores: torch.Tensor, kept: int, of: int) -> torch.Tensor:
    """Return where scores [outputs, inputs, …] stay when `kept` of each `of` neighbouring inputs do, at every place.

    The number of inputs is a multiple of `of`.
    """
    inputs_last = scores.movedim(1, -1)
    rows = inputs_last.reshape(-1, of)
    keep = keep_largest(rows, torch.full((len(rows),), of - kept))
    return keep.view(inputs_last.shape).movedim(-1, 1)
