"""The ranking is pure: scores and an amount in, cuts out."""

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
