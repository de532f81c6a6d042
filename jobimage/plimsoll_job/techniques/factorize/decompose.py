"""The best factors of one weight at every rank: SVD of a matrix, Tucker-2 of a convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from plimsoll_job.techniques.factorize.whitening import Whitening
from plimsoll_job.techniques.observe import HOST

Factors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Decomposition:
    """All products of factors that come near one weight.

    `energy[rank - 1]`, or `energy[in rank - 1, out rank - 1]`, is the share of the squares that is kept; `factors`
    gives the weights of the layers at such ranks, in the order in which they are applied.
    """

    energy: NDArray[np.float64]
    factors: Callable[[Sequence[int]], Factors]


def decompose(weight: torch.Tensor, whitening: Whitening | None = None, device: torch.device = HOST) -> Decomposition:
    """Return the decomposition of a weight [out, in, …kernel], nearest to its answers on inputs of this whitening.

    With W the weight and R the root of the inputs' second moment, the mean square of the answers' error is
    ‖(W - W')R‖², so WR is decomposed and R taken out of the factor that is applied first. That is exact for matrices.
    For larger kernels R whitens channels only: inputs at neighbouring positions count as independent.
    """
    tensor = weight.detach().to(device).double().reshape(*weight.shape[:2], -1)
    if whitening is not None:
        tensor = torch.einsum("oik,ij->ojk", tensor, whitening.root)
    found = _svd(tensor[..., 0]) if tensor.shape[2] == 1 else _tucker2(tensor)
    if whitening is None:
        return found
    return Decomposition(found.energy, partial(_unwhiten, found.factors, whitening.inverse))


def _svd(matrix: torch.Tensor) -> Decomposition:
    """Return the truncated SVD, which no product of the same rank comes nearer than (Eckart and Young 1936)."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)

    def factors(ranks: Sequence[int]) -> Factors:
        (rank,) = ranks
        # Each factor takes the root of the values, so that training and int8 find both in one range.
        roots = values[:rank].sqrt()
        return roots[:, None] * right[:rank], left[:, :rank] * roots

    return Decomposition(_share(values.square().cpu().cumsum(0)), factors)


def _tucker2(tensor: torch.Tensor) -> Decomposition:
    """Return Tucker-2 by higher-order SVD on both channel modes of [out, in, positions] (Kim et al., arXiv 1511.06530).

    The bases are orthonormal, so the squares that the core keeps are those that the product keeps.
    """
    outer = torch.linalg.svd(tensor.flatten(start_dim=1), full_matrices=False).U
    inner = torch.linalg.svd(tensor.transpose(0, 1).flatten(start_dim=1), full_matrices=False).U

    def factors(ranks: Sequence[int]) -> Factors:
        rank_in, rank_out = ranks
        narrows, widens = rank_in < tensor.shape[1], rank_out < tensor.shape[0]
        core = torch.einsum("oik,iq->oqk", tensor, inner[:, :rank_in]) if narrows else tensor
        core = torch.einsum("oqk,op->pqk", core, outer[:, :rank_out]) if widens else core
        first = (inner[:, :rank_in].T,) if narrows else ()
        last = (outer[:, :rank_out],) if widens else ()
        return (*first, core, *last)

    core = torch.einsum("oik,op,iq->pqk", tensor, outer, inner)
    return Decomposition(_share(core.square().sum(dim=2).T.cpu().cumsum(0).cumsum(1)), factors)


def _share(squares: torch.Tensor) -> NDArray[np.float64]:
    """Return sums of squares, which are on the host since no GPU adds up in order, as shares of the last."""
    total = squares.flatten()[-1]
    return (squares / total if total > 0 else torch.ones_like(squares)).numpy()


def _unwhiten(factors: Callable[[Sequence[int]], Factors], inverse: torch.Tensor, ranks: Sequence[int]) -> Factors:
    first, *others = factors(ranks)
    return torch.einsum("ri...,ij->rj...", first, inverse), *others
