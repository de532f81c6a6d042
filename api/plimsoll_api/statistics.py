"""Intervals for shares and for paired differences of shares, and the sample sizes that would decide.

Wilson, J Am Stat Assoc 22 (1927) 209: the score interval of one proportion.
Newcombe, Statistics in Medicine 17 (1998) 2635: the interval of the difference of two paired proportions, method 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

#: The chance that the needed number of samples decides, when the truth is as observed.
POWER = 0.9
#: A number of samples above this helps nobody: the truth lies too close to the limit.
UNREASONABLE_SAMPLES = 10_000_000


class Interval(NamedTuple):
    """A lower and an upper limit; each one-sided at the confidence that it was asked for."""

    low: float
    high: float


class PairedCounts(NamedTuple):
    """How often which of two models was right on the same samples; need not be whole numbers."""

    both: float
    only_first: float
    only_second: float
    neither: float

    @property
    def samples(self) -> float:
        """The number of samples."""
        return sum(self)

    @property
    def difference(self) -> float:
        """The share of the first model minus that of the second."""
        return (self.only_first - self.only_second) / self.samples

    def scaled_to(self, samples: float) -> PairedCounts:
        """Return the same shares at another number of samples."""
        return PairedCounts(*(count * samples / self.samples for count in self))


def z_score(confidence: float) -> float:
    """Return the standard normal quantile of a one-sided confidence: 1.645 for 0.95."""
    return NormalDist().inv_cdf(confidence)


def t_score(confidence: float, degrees: int) -> float:
    """Return Student's quantile of a one-sided confidence from 50% on, to 1e-3.

    Below 30 degrees of freedom by halving the exact distribution (Abramowitz and Stegun 26.7.3 and 26.7.4), above by
    the Cornish-Fisher expansion about the normal quantile (26.7.5).
    """
    if degrees < _FEW_DEGREES:
        low, high = 0.0, math.pi / 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if _within_t(middle, degrees) > 2 * confidence - 1 else (middle, high)
        return math.sqrt(degrees) * math.tan(low)
    z = z_score(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, 1))


_FEW_DEGREES = 30


def _within_t(angle: float, degrees: int) -> float:
    """Return the probability of |t| < sqrt(degrees) · tan(angle)."""
    odd, square = degrees % 2, math.cos(angle) ** 2
    term, total = 1.0, 0.0
    for number in range(1, (degrees - odd) // 2 + 1):
        total += term
        term *= square * (2 * number - 1 + odd) / (2 * number + odd)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    return math.sin(angle) * total


def mean_interval(mean: float, variance: float, third: float, samples: int, confidence: float) -> Interval:
    """Return an interval of a mean, from the mean, the variance and the third central moment of the samples.

    On each side the farther of Student's limit and of Hall's, which allows for a long tail (Hall, J R Stat Soc B 54
    (1992) 221): the cubic transformation of the t statistic whose skewness is gone.
    """
    quantile = t_score(confidence, samples - 1)
    error = math.sqrt(variance / samples)
    low, high = mean - quantile * error, mean + quantile * error
    if error == 0:
        return Interval(low, high)
    skewness = third / variance**1.5 / math.sqrt(samples)
    # Below this Hall's limits are Student's, and the division would lose all digits.
    if abs(skewness) > 1e-6:
        low = min(low, mean - error * _without_skewness(quantile, skewness))
        high = max(high, mean - error * _without_skewness(-quantile, skewness))
    return Interval(low, high)


def _without_skewness(quantile: float, skewness: float) -> float:
    """Return the t statistic whose transformed value is the quantile; `skewness` is over the root of the samples."""
    return 3 / skewness * (math.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)


def wilson_interval(successes: float, samples: float, z: float) -> Interval:
    """Return Wilson's score interval, without continuity correction, of a share."""
    share = successes / samples
    spread = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    middle = share + z * z / (2 * samples)
    scale = 1 + z * z / samples
    return Interval(max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))


def newcombe_paired_interval(counts: PairedCounts, z: float) -> Interval:
    """Return Newcombe's interval (method 10) of the difference of the first and the second share.

    It squares and adds the distances to the Wilson limits of both shares, less their correlation phi; phi's
    numerator is cut by n/2, down to 0, where it is positive (the paper's continuity correction).
    """
    n = counts.samples
    first, second = counts.both + counts.only_first, counts.both + counts.only_second
    low_1, high_1 = wilson_interval(first, n, z)
    low_2, high_2 = wilson_interval(second, n, z)
    share_1, share_2 = first / n, second / n
    phi = _corrected_phi(counts)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    return Interval(
        counts.difference - distance(share_1 - low_1, high_2 - share_2),
        counts.difference + distance(high_1 - share_1, share_2 - low_2),
    )


def _corrected_phi(counts: PairedCounts) -> float:
    both, only_first, only_second, neither = counts
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins <= 0:
        return 0.0
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - counts.samples / 2, 0.0)
    return product / math.sqrt(margins)


def samples_to_decide_difference(counts: PairedCounts, margin: float, confidence: float) -> int | None:
    """Return the samples that would show on which side of -margin the difference lies; None beyond all reason.

    n = (z_confidence + z_power)² (f - d²) / (d + margin)², f the flip rate and d the observed difference (a gain
    counts as none, so that luck promises nothing), but never fewer than Newcombe's interval itself needs there.
    """
    flip_rate = (counts.only_first + counts.only_second) / counts.samples
    difference = min(counts.difference, 0.0)
    planned = _planned_samples(flip_rate - difference**2, difference + margin, confidence)
    z = z_score(confidence)

    def decides(samples: float) -> bool:
        low, high = newcombe_paired_interval(counts.scaled_to(samples), z)
        return low > -margin or high < -margin

    return _larger(planned, _first_that(decides, above=counts.samples))


def samples_to_decide_share(successes: float, samples: float, limit: float, confidence: float) -> int | None:
    """Return the samples that would show on which side of the limit a share lies; None beyond all reason."""
    share = successes / samples
    planned = _planned_samples(share * (1 - share), share - limit, confidence)
    z = z_score(confidence)

    def decides(count: float) -> bool:
        low, high = wilson_interval(share * count, count, z)
        return low >= limit or high < limit

    return _larger(planned, _first_that(decides, above=samples))


def samples_to_decide_mean(mean: float, variance: float, samples: int, confidence: float) -> int | None:
    """Return the samples that would show on which side of 0 a mean lies; None beyond all reason."""
    if mean == 0:
        return None
    needed = (t_score(confidence, samples - 1) + z_score(POWER)) ** 2 * variance / mean**2
    return None if needed > UNREASONABLE_SAMPLES else max(samples + 1, math.ceil(needed))


def processes_to_decide_ratio(interval: Interval, limit: float, processes: int, confidence: float) -> int | None:
    """Return the processes after which the interval of a ratio would leave the limit outside; None beyond all reason.

    An interval narrows around its middle with the square root of the processes and with Student's quantile; the power
    asks for more on top.
    """
    half_width = interval.high / 2 - interval.low / 2
    distance = abs(limit - interval.low - half_width)
    if distance < 1e-9 or not math.isfinite(half_width):
        return None
    scatter = half_width / t_score(confidence, processes - 1) * math.sqrt(processes)

    def decides(count: float) -> bool:
        return (t_score(confidence, int(count) - 1) + z_score(POWER)) * scatter / math.sqrt(count) < distance

    return _first_that(decides, above=processes)


def _planned_samples(variance: float, distance: float, confidence: float) -> int | None:
    if abs(distance) < 1e-9:
        return None
    needed = (z_score(confidence) + z_score(POWER)) ** 2 * variance / distance**2
    return None if needed > UNREASONABLE_SAMPLES else math.ceil(needed)


def _first_that(decides: Callable[[float], bool], *, above: float) -> int | None:
    """Return the smallest whole number above that decides, by doubling and halving."""
    low, high = int(above), int(above) + 1
    while not decides(high):
        low, high = high, high * 2
        if low > UNREASONABLE_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
