"""Which of many weights stay: the largest scores of each row, equal ones by their place, so alike on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

#: A score's bits, as many as are told apart in one pass over all scores, from the highest on.
DIGIT_BITS = 16
SHIFTS = range(64 - DIGIT_BITS, -1, -DIGIT_BITS)


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


def keep_largest_of_all(scores: Callable[[], Iterable[torch.Tensor]], dropped: int) -> Iterator[torch.Tensor]:
    """Yield where the scores of each tensor are not among the `dropped` smallest of all; none is below zero.

    They are asked for once more for each digit of the largest that is dropped, so that none needs to be held.
    """
    limit, equal_dropped = _limit_of(scores, dropped) if dropped else (-1, 0)
    for score in scores():
        mask, equal_count = _above(_bits_of(score), limit, equal_dropped)
        yield mask
        equal_dropped = max(0, equal_dropped - equal_count)


def _above(bits: torch.Tensor, limit: int, equal_dropped: int) -> tuple[torch.Tensor, int]:
    """Return where the bits are above the limit, or equal to it and not the first to be dropped; how many are equal."""
    equal = (bits == limit).flatten()
    stay = (equal & (equal.cumsum(0) > equal_dropped)).view_as(bits)
    return (bits > limit) | stay, int(equal.sum())


def _limit_of(scores: Callable[[], Iterable[torch.Tensor]], dropped: int) -> tuple[int, int]:
    """Return the bits of the largest score that is dropped, and how many of those equal to it are."""
    limit, rank = 0, dropped - 1
    for shift in SHIFTS:
        counts = torch.zeros(1 << DIGIT_BITS, dtype=torch.int64)
        for score in scores():
            digits = _bits_of(score).flatten() >> shift
            digits = digits[digits >> DIGIT_BITS == limit]
            counts += torch.bincount(digits.sub_(limit << DIGIT_BITS), minlength=len(counts))
        ends = counts.cumsum(0)
        digit = int(torch.searchsorted(ends, rank, right=True))
        rank -= int(ends[digit] - counts[digit])
        limit = limit << DIGIT_BITS | digit
    return limit, rank + 1


def _bits_of(score: torch.Tensor) -> torch.Tensor:
    """Return integers in the order of the scores, none of which is below zero (IEEE 754, section 5.10)."""
    return score.double().contiguous().view(torch.int64)
