"""How much each layer can give: pruned alone at a few shares, it shows by the model's answers what that costs.

A scan in the manner of Li et al. 2017 (arXiv 1608.08710) and Han et al. 2015 (arXiv 1506.02626). Errors of
layers are taken to add up; for a given sum of savings their sum is then least where all layers cost the same for the
next bit saved. That is what the marginal costs here are: ranked by them over the whole model, the cheapest go first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.observe import HOST, Batch, Batches, Mask, counted_answers, moved
from plimsoll_job.techniques.record import six_digits

#: The shares of a layer that are tried.
SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)
#: How often the model answers at most, and how many samples: with more layers neighbours are tried together.
MOST_PROBES, MOST_SAMPLES = 320, 256
#: The largest error that is told of answers, such as of those that overflow.
WORST = 1e6

#: Takes a share of some layers out of the model for a while.
Silence = Callable[[Sequence[str], float], AbstractContextManager[None]]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """The error of the model's answers, over their variance, by layer and by share of SHARES that it lacks alone.

    `together` layers at a time were tried, each of which is told with an equal part of the error.
    """

    errors: Mapping[str, tuple[float, ...]]
    probes: int
    samples: int
    together: int

    def to_wire(self) -> dict[str, Any]:
        """Return the table as the record tells it."""
        return {
            "shares": list(SHARES),
            "errors": {name: [six_digits(error) for error in errors] for name, errors in self.errors.items()},
            "forwardPasses": self.probes + 1,
            "samples": self.samples,
            "layersTogether": self.together,
        }

    def marginal_cost(self, name: str, shares: Numbers) -> Numbers:
        """Return how fast the error grows at each share of the layer that is gone; it never falls."""
        corners = _convex([(0.0, 0.0), *zip(SHARES, self.errors[name], strict=True)])
        slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(corners)]
        middles = [(before[0] + after[0]) / 2 for before, after in pairwise(corners)]
        # Straight from nothing through the middles, and on as the last stretch goes.
        rise = slopes[-1] - (slopes[-2] if len(slopes) > 1 else 0.0)
        run = middles[-1] - (middles[-2] if len(slopes) > 1 else 0.0)
        last = slopes[-1] + rise / run * (1 - middles[-1])
        return np.interp(shares, [0.0, *middles, 1.0], [0.0, *slopes, last])


def scan(
    module: nn.Module, layers: Sequence[str], silence: Silence, samples: Samples, device: torch.device = HOST
) -> Scan:
    """Return the scan of the layers, in the order of the model; it asks for at most MOST_PROBES passes and one."""
    asked = samples.take(slice(0, MOST_SAMPLES))
    together = math.ceil(len(layers) * len(SHARES) / MOST_PROBES)
    errors: dict[str, tuple[float, ...]] = {}
    probes = 0
    with moved(device, module):
        batches = list(Batches.of(asked, device).masked())
        whole = _answers(module, batches)
        variance = float((whole - whole.mean(dim=0)).square().mean()) or 1.0
        for start in range(0, len(layers), together):
            pool = layers[start : start + together]
            found = []
            for share in SHARES:
                with silence(pool, share):
                    error = float((_answers(module, batches) - whole).square().mean()) / variance
                found.append((min(error, WORST) if math.isfinite(error) else WORST) / len(pool))
                probes += 1
            errors |= dict.fromkeys(pool, tuple(found))
    return Scan(errors, probes, len(asked), together)


def _answers(module: nn.Module, batches: Iterable[tuple[Batch, Mask]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([counted_answers(module(*batch), mask).cpu().double() for batch, mask in batches])


def _convex(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the largest convex curve that is nowhere above the points, from left to right."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) >= _slope(corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    return corners


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
