"""Where an activation's range ends, chosen on its histogram: what lies beyond is cut off, the rest is rounded finer.

Every range holds 0, which integers then stand for exactly: an end on the other side of it is 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.spec import RangeMethod
from plimsoll_job.techniques.quantize.ranges.histogram import BINS, Histogram
from plimsoll_job.techniques.quantize.rounding import LARGEST, LEAST

#: The share of all values that lies within a range by Percentile; half of the rest at most is cut off at each end.
WITHIN = 0.9999
#: Each end is searched among its quarters of quarters, to so many halvings, and then near the best by these shares of
#: one, so many to both sides.
HALVINGS, COARSE, FINER, NEAR = 12, 2, (0.5, 0.125), 3
#: Parts of the width of one integer among which values of one histogram are told apart by Entropy.
PARTS = 8
#: Of fewer values chance makes most of what Entropy measures: a range keeps them all.
FEWEST_VALUES = 8 * BINS
#: The least share that Entropy takes a part to have which only what was cut off is in.
FAINT = 1e-9
LEVELS = LARGEST - LEAST + 1

Ends = tuple[float, float]


def percentile(histogram: Histogram) -> Ends:
    """Return the ends between which 99.99% of the values lie, as near as bins tell."""
    low, high = _whole(histogram)
    beyond = (1 - WITHIN) / 2 * histogram.counts.sum()
    first, spared = (
        int(np.searchsorted(np.cumsum(counts), beyond, side="right"))
        for counts in (histogram.counts, histogram.counts[::-1])
    )
    last = len(histogram.counts) - spared
    return max(low, min(0.0, float(histogram.edges[first]))), min(high, max(0.0, float(histogram.edges[last])))


def mean_squared_error(histogram: Histogram) -> Ends:
    """Return the ends by which rounding to 256 integers has the least expected squared error, cutting off included."""
    return _search(histogram, _squared_error)


def entropy(histogram: Histogram) -> Ends:
    """Return the ends by which the rounded distribution is nearest to the whole one, by Kullback and Leibler's measure.

    As in Migacz 2017, "8-bit inference with TensorRT", with two ends to be found in the place of one.
    """
    return _whole(histogram) if histogram.counts.sum() < FEWEST_VALUES else _search(histogram, _divergence)


METHODS: Mapping[RangeMethod, Callable[[Histogram], Ends]] = {
    RangeMethod.PERCENTILE: percentile,
    RangeMethod.MSE: mean_squared_error,
    RangeMethod.ENTROPY: entropy,
}


def _whole(histogram: Histogram) -> Ends:
    return min(0.0, float(histogram.edges[0])), max(0.0, float(histogram.edges[-1]))


def _search(histogram: Histogram, cost: Callable[[Histogram, float, float], float]) -> Ends:
    """Return the ends of the least cost; of ends that cost the same the widest, which cut off the least."""
    low, high = _whole(histogram)
    costs: dict[Ends, float] = {}

    def best(lows: NDArray[np.float64], highs: NDArray[np.float64]) -> tuple[float, float]:
        for one in itertools.product(lows if low else lows[:1], highs if high else highs[:1]):
            if one not in costs:
                costs[one] = cost(histogram, low * 2 ** -one[0], high * 2 ** -one[1])
        return min(costs, key=lambda one: (costs[one], one))

    halvings = np.arange(0.0, HALVINGS + 1, COARSE)
    chosen = best(halvings, halvings)
    for step in FINER:
        near = step * np.arange(-NEAR, NEAR + 1)
        chosen = best(*(np.maximum(0, end + near) for end in chosen))
    return float(low * 2 ** -chosen[0]), float(high * 2 ** -chosen[1])


def _grid(low: float, high: float) -> tuple[float, float]:
    """Return what the least integer of the range stands for, and the step to the next, as ONNX Runtime has them."""
    step = (high - low) / (LARGEST - LEAST)
    return round(low / step) * step, step


def _squared_error(histogram: Histogram, low: float, high: float) -> float:
    """Return the expected square of what rounding changes, where the values of a bin lie evenly in it."""
    least, step = _grid(low, high)
    held = np.clip(histogram.edges, least, least + (LEVELS - 1) * step)
    integers = np.round(held / step)
    # Integrals from 0: a twelfth an integer, and what of the next lies before; beyond the ends a distance squared.
    rounded = step**3 * (integers / 12 + (held / step - integers) ** 3 / 3)
    integral = rounded + (histogram.edges - held) ** 3 / 3
    means = np.diff(integral) / np.diff(histogram.edges)
    return float((histogram.counts * means).sum() / histogram.counts.sum())


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    """Return how far the values' distribution, cut off at the ends, is from what integers tell of what lies within."""
    least, step = _grid(low, high)
    edges = least + step * (np.arange(LEVELS * PARTS + 1) / PARTS - 0.5)
    below = histogram.below(edges)
    within = np.diff(below)
    whole = within.copy()
    whole[0] += below[0]
    whole[-1] += 1 - below[-1]
    if not within.any():
        return np.inf
    by_integer = (within / within.sum()).reshape(LEVELS, PARTS)
    seen = by_integer > 0
    evenly = by_integer.sum(axis=1, keepdims=True) / np.maximum(1, seen.sum(axis=1, keepdims=True))
    told = np.where(seen, evenly, 0).ravel()
    held = whole > 0
    return float((whole[held] * np.log(whole[held] / np.maximum(FAINT, told[held]))).sum())
