"""The ranking is pure: scores and an amount in, cuts out."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from plimsoll_job.techniques.prune.ranking import rank_blocks, select_cuts
from plimsoll_job.techniques.shape import Cut


def share_of_hundred(cuts: Sequence[Cut]) -> float:
    return sum(len(one.channels) for one in cuts) / 100


def test_blocks_go_from_the_least_important_channel_up() -> None:
    blocks = rank_blocks({"a": np.array([4.0, 1.0, 3.0, 2.0])}, width=2)
    assert [block.channels for block in blocks] == [(1, 3)]


def test_what_is_left_of_a_group_is_a_multiple_of_the_width() -> None:
    for channels in (8, 9, 15, 17, 64):
        blocks = rank_blocks({"a": np.arange(channels, dtype=float)}, width=8)
        left = channels
        for block in blocks:
            left -= len(block.channels)
            assert left % 8 == 0
            assert left > 0


def test_groups_no_wider_than_a_block_stay_whole() -> None:
    assert rank_blocks({"a": np.zeros(8), "b": np.zeros(3)}, width=8) == []


def test_the_least_important_of_all_groups_goes_first() -> None:
    blocks = rank_blocks({"a": np.array([1.0, 5.0, 9.0]), "b": np.array([0.5, 6.0, 7.0])}, width=1)
    assert [(block.root, block.channels[0]) for block in blocks] == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


@pytest.mark.parametrize("amount", [0.1, 0.33, 0.5, 0.72, 0.9])
def test_the_amount_is_met_within_a_point(amount: float) -> None:
    selection = select_cuts({"a": np.arange(60.0), "b": np.arange(40.0)}, amount, share_of_hundred)
    assert selection.share == pytest.approx(amount, abs=0.01)


def test_wide_blocks_are_preferred_where_they_come_close_enough() -> None:
    assert select_cuts({"a": np.arange(100.0)}, 0.52, share_of_hundred).block_width == 8  # 4 at first, then six of 8
    assert select_cuts({"a": np.arange(100.0)}, 0.505, share_of_hundred).block_width == 2


def test_no_group_is_cut_whole() -> None:
    selection = select_cuts({"a": np.zeros(60), "b": np.ones(40)}, 0.999, share_of_hundred)
    assert {one.layer: len(one.channels) for one in selection.cuts} == {"a": 59, "b": 39}


def test_too_small_an_amount_cuts_nothing() -> None:
    assert select_cuts({"a": np.arange(10.0)}, 0.001, share_of_hundred).cuts == ()


def worth(scores: dict[str, np.ndarray], cuts: Sequence[Cut]) -> float:
    """Return the score of the most important channel that goes."""
    return max(float(scores[one.layer][list(one.channels)].max()) for one in cuts)


def test_what_others_rank_before_is_not_passed_over_for_what_matters_more() -> None:
    """A head of a fifth comes next; of what costs a thousand times as much less would fit as well."""
    scores = {"cheap": np.full(48, 1.0), "heads": np.full(40, 2.0), "dear": np.full(12, 1000.0)}
    units = {"heads": np.arange(40).reshape(2, 20)}
    for amount in (0.5, 0.55):
        selection = select_cuts(scores, amount, share_of_hundred, units)
        assert selection.share == pytest.approx(amount, abs=0.01)
        assert worth(scores, selection.cuts) == 2.0


def test_wide_blocks_do_not_go_before_what_narrow_ones_would_leave() -> None:
    """A layer whose next eight channels are too many gives fewer of them; others do not give more in their place."""
    scores = {"cheap": np.full(33, 1.0), "next": np.full(33, 2.0), "dear": np.full(34, 1000.0)}

    def weighed(cuts: Sequence[Cut]) -> float:
        weights = {"cheap": 0.001, "next": 0.02, "dear": 0.002}
        return math.fsum(len(one.channels) * weights[one.layer] for one in cuts)

    selection = select_cuts(scores, 0.1, weighed)
    assert selection.share == pytest.approx(0.1, abs=0.01)
    assert worth(scores, selection.cuts) == 2.0


def test_what_takes_too_much_by_itself_is_passed_over() -> None:
    scores = {"heads": np.full(60, 1.0), "dear": np.full(40, 2.0)}
    units = {"heads": np.arange(60).reshape(2, 30)}
    selection = select_cuts(scores, 0.2, share_of_hundred, units)
    assert selection.share == pytest.approx(0.2, abs=0.01)
    assert [one.layer for one in selection.cuts] == ["dear"]


@pytest.mark.parametrize("seed", range(60))
def test_a_larger_amount_never_costs_less(seed: int) -> None:
    """Of groups of any sizes, some of heads, and of scores that are far apart."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(24, 80, 6)
    scores = {str(at): np.sort(chance.gamma(0.5, 10.0 ** chance.integers(0, 4), size)) for at, size in enumerate(sizes)}
    units = {"0": np.arange(sizes[0] // 4 * 4).reshape(-1, 4), "1": np.arange(sizes[1] // 4 * 4).reshape(4, -1)}
    weights = dict(zip(scores, chance.uniform(0.2, 3, 6), strict=True))
    whole = sum(len(score) * weights[root] for root, score in scores.items())

    def share_of(cuts: Sequence[Cut]) -> float:
        return float(math.fsum(len(one.channels) * weights[one.layer] for one in cuts) / whole)

    def cost(cuts: Sequence[Cut]) -> float:
        return math.fsum(scores[one.layer][list(one.channels)].sum() * weights[one.layer] for one in cuts)

    amounts = (0.15, 0.3, 0.45, 0.6)
    found = [select_cuts(scores, amount, share_of, units) for amount in amounts]
    assert [one.share for one in found] == pytest.approx(amounts, abs=0.01)
    costs = [cost(one.cuts) for one in found]
    assert costs == sorted(costs)


def test_cheap_blocks_do_not_stay_for_one_that_costs_more_than_what_comes_next() -> None:
    scores = {
        "cheap": np.concatenate([np.full(16, 1e-9), np.full(8, 100.0)]),
        "wide": np.full(16, 1.0),
        "next": np.full(11, 1.1),
    }

    def weighed(cuts: Sequence[Cut]) -> float:
        weights = {"cheap": 0.00625, "wide": 0.01, "next": 0.01}
        return math.fsum(len(one.channels) * weights[one.layer] for one in cuts)

    selection = select_cuts(scores, 0.13, weighed)
    assert selection.share == pytest.approx(0.13, abs=0.01)
    assert math.fsum(scores[one.layer][list(one.channels)].sum() for one in selection.cuts) < 4
