"""Moments of numbers that every sample has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Moments


def moments_of(*numbers: NDArray[Any]) -> Moments:
    """Return means, covariances and third central moments of arrays [n] of float64; of one sample all spread is 0."""
    values = np.stack([one.astype(np.float64) for one in numbers])
    samples = values.shape[1]
    means = values.mean(axis=1)
    away = values - means[:, None]
    thirds = np.einsum("in,jn,kn->ijk", away, away, away) / samples
    return Moments(
        samples=samples,
        means=means.tolist(),
        covariances=(away @ away.T / max(samples - 1, 1)).tolist(),
        thirds=thirds.tolist(),
    )
