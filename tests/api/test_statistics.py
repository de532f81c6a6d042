"""Intervals against published figures, and sample sizes against what they promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll_api.statistics import (
    Interval,
    PairedCounts,
    newcombe_paired_interval,
    processes_to_decide_ratio,
    samples_to_decide_difference,
    samples_to_decide_share,
    t_score,
    wilson_interval,
    z_score,
)

Z_TWO_SIDED_95 = z_score(0.975)

#: Newcombe, Statistics in Medicine 17 (1998) 2635, table III, method 10: counts e, f, g, h and the printed 95% limits.
TABLE_III = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((2, 97, 1, 0), (0.8721, 0.9854)),
    ((0, 29, 1, 0), (0.6666, 0.9882)),
    ((2, 98, 0, 0), (0.9178, 0.9945)),
    ((1, 98, 0, 1), (0.9171, 0.9916)),
    ((0, 30, 0, 0), (0.8395, 1.0)),
    ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ((53, 0, 0, 1), (-0.0729, 0.0729)),
    ((30, 0, 0, 24), (-0.0358, 0.0358)),
    ((29, 0, 0, 25), (-0.0354, 0.0354)),
    ((28, 0, 0, 26), (-0.0352, 0.0352)),
    ((27, 0, 0, 27), (-0.0351, 0.0351)),
]


@pytest.mark.parametrize(("cells", "limits"), TABLE_III)
def test_newcombes_own_table(cells: tuple[int, int, int, int], limits: tuple[float, float]) -> None:
    assert newcombe_paired_interval(PairedCounts(*cells), Z_TWO_SIDED_95) == pytest.approx(limits, abs=0.5001e-4)


def test_the_row_where_the_paper_prints_one_limit_two_ways() -> None:
    """Cells 1, 97, 1, 1 have eh < fg, where methods 8 and 10 are one; the paper prints .8737 and .8736 for it."""
    low, high = newcombe_paired_interval(PairedCounts(1, 97, 1, 1), Z_TWO_SIDED_95)
    assert low == pytest.approx(0.8737, abs=0.5001e-4)
    assert high == pytest.approx(0.9850, abs=0.5001e-4)


def test_altmans_worked_example() -> None:
    """Altman et al., Statistics with Confidence, 2nd ed. 2000, table 6.2, page 52: 0.122, 95% from 0.011 to 0.226."""
    counts = PairedCounts(14, 5, 0, 22)
    assert counts.difference == pytest.approx(0.122, abs=5e-4)
    assert newcombe_paired_interval(counts, Z_TWO_SIDED_95) == pytest.approx((0.0115, 0.2265), abs=1e-3)


@pytest.mark.parametrize(
    ("successes", "samples", "limits"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3 (Wilson without continuity correction).
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (29, 29, (0.8830, 1.0)),
    ],
)
def test_wilsons_interval(successes: int, samples: int, limits: tuple[float, float]) -> None:
    assert wilson_interval(successes, samples, Z_TWO_SIDED_95) == pytest.approx(limits, abs=0.6e-4)


def test_one_sided_95_percent_is_1_645() -> None:
    assert z_score(0.95) == pytest.approx(1.6449, abs=1e-4)


COUNTS = st.builds(
    PairedCounts,
    st.integers(0, 3000),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 3000),
).filter(lambda counts: counts.samples > 0)


@given(COUNTS)
def test_the_interval_holds_the_difference_and_stays_possible(counts: PairedCounts) -> None:
    low, high = newcombe_paired_interval(counts, z_score(0.95))
    assert -1 - 1e-12 <= low <= counts.difference + 1e-12
    assert counts.difference - 1e-12 <= high <= 1 + 1e-12


@given(COUNTS)
def test_swapping_the_models_mirrors_the_interval(counts: PairedCounts) -> None:
    swapped = PairedCounts(counts.both, counts.only_second, counts.only_first, counts.neither)
    low, high = newcombe_paired_interval(counts, 1.645)
    assert newcombe_paired_interval(swapped, 1.645) == pytest.approx((-high, -low), abs=1e-12)


@given(COUNTS, st.floats(0.5, 3), st.floats(0.1, 2))
def test_more_confidence_is_a_wider_interval(counts: PairedCounts, z: float, more: float) -> None:
    narrow, wide = newcombe_paired_interval(counts, z), newcombe_paired_interval(counts, z + more)
    assert wide.low <= narrow.low + 1e-12
    assert wide.high >= narrow.high - 1e-12


@pytest.mark.parametrize(("margin", "samples"), [(0.01, 4282), (0.02, 1071), (0.04, 268)])
def test_the_planned_samples_are_the_textbooks(margin: float, samples: int) -> None:
    """(1.645 + 1.282)² x 5% / margin², as every text on non-inferiority of paired shares has it."""
    needed = samples_to_decide_difference(PairedCounts(185, 5, 5, 5), margin, 0.95)
    assert needed is not None
    assert samples <= needed <= samples * 1.1
    assert math.ceil((z_score(0.95) + z_score(0.9)) ** 2 * 0.05 / margin**2) == samples


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("cells", [(98, 0, 0, 2), (285, 3, 5, 7), (480, 10, 8, 2), (300, 0, 0, 0)])
def test_with_the_needed_samples_the_same_shares_decide(cells: tuple[int, ...], margin: float) -> None:
    counts = PairedCounts(*cells)
    needed = samples_to_decide_difference(counts, margin, 0.95)
    assert needed is not None
    assert needed > counts.samples
    low, high = newcombe_paired_interval(counts.scaled_to(needed), z_score(0.95))
    assert low > -margin or high < -margin


def test_the_planned_samples_are_those_of_the_observed_loss() -> None:
    """(1.6449 + 1.2816)² x (0.05 - 0.01²) / (0.02 - 0.01)²."""
    assert samples_to_decide_difference(PairedCounts(900, 20, 30, 50), 0.02, 0.95) == 4274


def test_the_planned_samples_of_a_share() -> None:
    """(1.6449 + 1.2816)² x 0.94 x 0.06 / 0.04²."""
    assert samples_to_decide_share(94, 100, 0.9, 0.95) == 302


def test_identical_answers_need_what_the_interval_needs() -> None:
    assert samples_to_decide_difference(PairedCounts(98, 0, 0, 2), 0.02, 0.95) == 152


def test_a_gain_promises_nothing() -> None:
    lucky = samples_to_decide_difference(PairedCounts(19, 1, 0, 0), 0.04, 0.95)
    assert lucky is not None
    assert lucky >= (z_score(0.95) + z_score(0.9)) ** 2 * 0.05 / 0.04**2


def test_a_difference_at_the_margin_is_never_decided() -> None:
    assert samples_to_decide_difference(PairedCounts(950, 0, 20, 30), 0.02, 0.95) is None
    assert samples_to_decide_difference(PairedCounts(95000, 0, 2001, 2999), 0.02, 0.95) is None


def test_the_needed_samples_of_a_share_decide() -> None:
    needed = samples_to_decide_share(95, 100, 0.9, 0.95)
    assert needed is not None
    assert needed > 100
    assert wilson_interval(0.95 * needed, needed, z_score(0.95)).low >= 0.9
    assert samples_to_decide_share(90, 100, 0.9, 0.95) is None


def test_the_needed_samples_of_a_share_below_its_limit_decide_that() -> None:
    needed = samples_to_decide_share(88, 100, 0.9, 0.95)
    assert needed is not None
    assert wilson_interval(0.88 * needed, needed, z_score(0.95)).high < 0.9


def test_the_needed_processes_of_a_ratio() -> None:
    below, above = Interval(0.80, 1.10), Interval(0.9, 1.2)
    scatter = 0.15 * 6**0.5 / t_score(0.975, 5)
    needed = processes_to_decide_ratio(below, 1.0, 6, 0.975)
    assert needed is not None
    for count, decides in ((needed, True), (needed - 1, False)):
        assert ((t_score(0.975, count - 1) + z_score(0.9)) * scatter / count**0.5 < 0.05) is decides
    assert 60 < needed < 90
    assert processes_to_decide_ratio(above, 1.0, 6, 0.975) == needed
    assert processes_to_decide_ratio(Interval(0.875, 1.125), 1.0, 6, 0.975) is None
    assert processes_to_decide_ratio(Interval(0.0, math.inf), 1.0, 6, 0.975) is None
