"""How much of what to cut: channels ranked over the whole model, in blocks that vector units like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.techniques.shape import Cut

#: Widths of blocks, tried in turn until the amount is met closely enough: layers as wide as a multiple of 8 run faster.
BLOCK_WIDTHS = (8, 4, 2, 1)
#: A block width is good enough when the share taken away is this near to the amount.
CLOSE_ENOUGH = 0.01


@dataclass(frozen=True)
class Block:
    """Channels of one group that go at once."""

    root: str
    channels: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Selection:
    """The cuts that come nearest to the amount, the share of the parameters that they take, and the most there is."""

    cuts: tuple[Cut, ...]
    share: float
    largest_share: float
    block_width: int


def select_cuts(
    scores: Mapping[str, NDArray[np.float64]], amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> Selection:
    """Return the cuts of the lowest-ranked blocks whose share of the parameters is nearest to the amount.

    `share_of` tells the share that cuts take away; it grows with every further block. Wide blocks are preferred, as
    long as they come within CLOSE_ENOUGH of the amount. No group is ever cut whole.
    """
    found: list[Selection] = []
    for width in BLOCK_WIDTHS:
        blocks = rank_blocks(scores, width)
        selection = _nearest(blocks, width, amount, share_of)
        if abs(selection.share - amount) <= CLOSE_ENOUGH:
            return selection
        found.append(selection)
    return min(reversed(found), key=lambda selection: abs(selection.share - amount))


def rank_blocks(scores: Mapping[str, NDArray[np.float64]], width: int) -> list[Block]:
    """Return all blocks that may go, least important first.

    Within a group they go from its least important channel up, the first one as narrow as it must be for the rest to
    be a multiple of the width; the last block of a group always stays.
    """
    blocks = []
    for root, of_channel in scores.items():
        order = np.argsort(of_channel, kind="stable")
        first = len(order) % width
        starts = [0, *range(first or width, len(order), width)] if len(order) > width else []
        for start, end in pairwise(starts):
            channels = order[start:end]
            blocks.append(Block(root, tuple(int(channel) for channel in channels), float(of_channel[channels].mean())))
    return sorted(blocks, key=lambda block: block.score)


def _nearest(
    blocks: Sequence[Block], width: int, amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> Selection:
    largest_share = share_of(merge_blocks(blocks))

    def taking(count: int) -> Selection:
        cuts = merge_blocks(blocks[:count])
        return Selection(cuts, share_of(cuts), largest_share, width)

    low, high = taking(0), taking(len(blocks))
    low_count, high_count = 0, len(blocks)
    while high_count - low_count > 1:
        middle_count = (low_count + high_count) // 2
        middle = taking(middle_count)
        if middle.share <= amount:
            low, low_count = middle, middle_count
        else:
            high, high_count = middle, middle_count
    return min(low, high, key=lambda selection: abs(selection.share - amount))


def merge_blocks(blocks: Sequence[Block]) -> tuple[Cut, ...]:
    """Return one cut for each group that the blocks are of."""
    channels: dict[str, list[int]] = {}
    for block in blocks:
        channels.setdefault(block.root, []).extend(block.channels)
    return tuple(Cut(root, tuple(sorted(numbers))) for root, numbers in sorted(channels.items()))
