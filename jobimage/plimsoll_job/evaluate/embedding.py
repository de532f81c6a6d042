"""Quality of embeddings: how near vectors [n, dimensions] are to the baseline's, and whether neighbours stay so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import QualityFigures

Vectors = NDArray[np.floating[Any]]

NEIGHBOURS = 10
#: Samples, spread evenly over the data, whose pairs are compared.
MAX_NEIGHBOURHOOD, MAX_RANKED = 2_000, 500


def fidelity(baseline: Vectors, vectors: Vectors) -> QualityFigures:
    """Return the cosines to the baseline's vectors, and how far neighbours and the order of all pairs stay the same."""
    cosines = similarities(baseline, vectors)
    return QualityFigures(
        cosine_similarity=float(cosines.mean()),
        cosine_similarity_p5=float(np.quantile(cosines, 0.05)),
        neighbour_overlap=neighbour_overlap(baseline, vectors),
        rank_correlation=rank_correlation(baseline, vectors),
    )


def similarities(baseline: Vectors, vectors: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each pair of vectors; 0 where one of them is 0."""
    cosines: NDArray[np.float64] = np.clip((_unit(baseline) * _unit(vectors)).sum(axis=1), -1, 1)
    return cosines


def neighbour_overlap(baseline: Vectors, vectors: Vectors) -> float | None:
    """Return the mean share of a sample's nearest neighbours by cosine that stay; None where a sample has none."""
    chosen = _spread(len(baseline), MAX_NEIGHBOURHOOD)
    count = min(NEIGHBOURS, len(chosen) - 1)
    if count < 1:
        return None
    kept = np.zeros((len(chosen), len(chosen)), dtype=np.int8)
    for one in (baseline, vectors):
        near = _pairwise(one[chosen])
        np.fill_diagonal(near, -np.inf)
        nearest = np.argsort(-near, axis=1, kind="stable")[:, :count]
        np.put_along_axis(kept, nearest, np.take_along_axis(kept, nearest, axis=1) + 1, axis=1)
    return float((kept == 2).sum() / (count * len(chosen)))


def rank_correlation(baseline: Vectors, vectors: Vectors) -> float | None:
    """Return Spearman's correlation of the cosines of all pairs; None where there are no two different ones."""
    chosen = _spread(len(baseline), MAX_RANKED)
    pairs = np.triu_indices(len(chosen), k=1)
    first, second = (_ranks(_pairwise(one[chosen])[pairs]) for one in (baseline, vectors))
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _pairwise(vectors: Vectors) -> NDArray[np.float64]:
    unit = _unit(vectors)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[which]
    return mean_ranks
