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
#: What goes in wide blocks may matter so many times as much as what would go in narrow ones.
DEARER = 1.5


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
    scores: Mapping[str, NDArray[np.float64]],
    amount: float,
    share_of: Callable[[Sequence[Cut]], float],
    units: Mapping[str, NDArray[np.int64]] | None = None,
) -> Selection:
    """Return the cuts of the lowest-ranked blocks whose share of the parameters is nearest to the amount.

    `share_of` tells the share that cuts take away; it grows with every further block. Wide blocks are preferred, as
    long as they come within CLOSE_ENOUGH of the amount in the order of their rank. Where the next one, such as a head,
    is too much, the last ones of other groups may stay for it, or its group gives no more and others go on: the widest
    blocks, narrower ones in order among them, whose scores sum up to at most DEARER times the least. No group is ever
    cut whole. Of a group that `units` names those channels, [units, channels], go at once that it has in a row, and no
    others.
    """

    def score_of(selection: Selection) -> float:
        return sum(float(scores[cut.layer][list(cut.channels)].sum()) for cut in selection.cuts)

    ranked = {width: rank_blocks(scores, width, units or {}) for width in BLOCK_WIDTHS}
    found: list[Selection] = []
    near: list[Selection] = []
    for width, blocks in ranked.items():
        in_order, given_back = _in_order(blocks, width, amount, share_of)
        ordered = [one for one in in_order if _is_near(one, amount)]
        if ordered and not found:
            return _nearest(ordered, amount)
        found += [*in_order, *given_back]
        near += [one for one in given_back if _is_near(one, amount)]
        if ordered:
            near.append(_nearest(ordered, amount))
            break
    for width, blocks in ranked.items():
        found.append(_passing_over(blocks, width, amount, share_of))
        if _is_near(found[-1], amount):
            near.append(found[-1])
            break
    if not near:
        return _nearest(found[::-1], amount)
    limit = DEARER * min(map(score_of, near))
    return max((one for one in near if score_of(one) <= limit), key=lambda one: (one.block_width, -score_of(one)))


def _is_near(selection: Selection, amount: float) -> bool:
    return abs(selection.share - amount) <= CLOSE_ENOUGH


def _nearest(selections: Sequence[Selection], amount: float) -> Selection:
    return min(selections, key=lambda selection: abs(selection.share - amount))


def rank_blocks(
    scores: Mapping[str, NDArray[np.float64]], width: int, units: Mapping[str, NDArray[np.int64]] | None = None
) -> list[Block]:
    """Return all blocks that may go, least important first.

    Within a group they go from its least important channel up, the first one as narrow as it must be for the rest to
    be a multiple of the width; the last block of a group always stays. A unit wider than that is a block.
    """
    blocks = []
    for root, of_channel in scores.items():
        found = (units or {}).get(root)
        members = np.arange(len(of_channel))[:, None] if found is None else found
        of_unit = of_channel[members].mean(axis=1)
        order = np.argsort(of_unit, kind="stable")
        size = max(1, width // members.shape[1])
        first = len(order) % size
        starts = [0, *range(first or size, len(order), size)] if len(order) > size else []
        for start, end in pairwise(starts):
            chosen = order[start:end]
            channels = members[chosen].flatten()
            blocks.append(Block(root, tuple(int(channel) for channel in channels), float(of_unit[chosen].mean())))
    return sorted(blocks, key=lambda block: block.score)


def _in_order(
    blocks: Sequence[Block], width: int, amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> tuple[list[Selection], list[Selection]]:
    """Return the lowest-ranked blocks up to the amount and with one more, and those with one more for others."""
    largest_share = share_of(merge_blocks(blocks))
    below, above, count = _around(blocks, amount, share_of)
    kinds = ((below, above), _given_back(blocks[: count + 1], amount, share_of))
    in_order, given_back = (
        [Selection(cuts, share_of(cuts), largest_share, width) for cuts in several] for several in kinds
    )
    return in_order, given_back


def _passing_over(
    blocks: Sequence[Block], width: int, amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> Selection:
    """Return the lowest-ranked blocks nearest to the amount, without further ones of groups whose next is too much."""
    largest_share = share_of(merge_blocks(blocks))
    found: list[Selection] = []
    while True:
        below, above, count = _around(blocks, amount, share_of)
        found += [Selection(cuts, share_of(cuts), largest_share, width) for cuts in (below, above)]
        best = _nearest(found, amount)
        if _is_near(best, amount) or count == len(blocks):
            return best
        blocks = [*blocks[:count], *(block for block in blocks[count:] if block.root != blocks[count].root)]


def _given_back(
    blocks: Sequence[Block], amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> tuple[tuple[Cut, ...], ...]:
    """Return the two cuts nearest to the amount of blocks that take more, without the last ones of other groups.

    The last of all blocks stays, and those of its group.
    """
    if not blocks:
        return ()
    own = [block for block in blocks if block.root == blocks[-1].root]
    others = [block for block in blocks if block.root != blocks[-1].root]
    low, high = -1, len(others)
    while high - low > 1:
        middle = (low + high) // 2
        if share_of(merge_blocks([*own, *others[:middle]])) <= amount:
            low = middle
        else:
            high = middle
    return tuple(merge_blocks([*own, *others[:count]]) for count in (low, high) if count >= 0)


def _around(
    blocks: Sequence[Block], amount: float, share_of: Callable[[Sequence[Cut]], float]
) -> tuple[tuple[Cut, ...], tuple[Cut, ...], int]:
    """Return the cuts of the most blocks that take no more than the amount, those of one more, and their count."""
    low, high = 0, len(blocks) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if share_of(merge_blocks(blocks[:middle])) <= amount:
            low = middle
        else:
            high = middle
    return merge_blocks(blocks[:low]), merge_blocks(blocks[:high]), low


def merge_blocks(blocks: Sequence[Block]) -> tuple[Cut, ...]:
    """Return one cut for each group that the blocks are of."""
    channels: dict[str, list[int]] = {}
    for block in blocks:
        channels.setdefault(block.root, []).extend(block.channels)
    return tuple(Cut(root, tuple(sorted(numbers))) for root, numbers in sorted(channels.items()))
