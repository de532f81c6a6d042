"""Rounding one weight after another, what each loses made up by those still to come: GPTQ.

Frantar et al. 2022, arXiv 2210.17323, with the scales of the unchanged weight: the largest weights, which ONNX Runtime
finds the scales from, and zeros, which a pruning may have made, stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plimsoll_job.techniques.quantize.refine.grid import Grid

#: What is added to the moments' diagonal, of its mean; ten times as much until they can be factored.
DAMPING, MOST_DAMPING = 0.01, 1.0
#: Inputs whose losses are made up for together in all that follow.
COLUMNS = 128


def round_compensated(weight: Tensor, moments: Tensor, grid: Grid) -> tuple[Tensor, float] | None:
    """Return the weight [outputs, inputs] rounded so that its answers stay, and its error over the nearest rounding's.

    `moments` [inputs, inputs] are the second moments of what it is multiplied with, about zero, of Float64. The error
    is the root mean square of that of the answers. Outputs that are no nearer so are rounded to the nearest. None where
    the moments or the weight are no finite numbers, or all moments are zero.
    """
    if not weight.isfinite().all() or not moments.isfinite().all():
        return None
    # Inputs of more weight lose first, while others are left to make up for it.
    order = moments.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(moments, order)
    if factor is None:
        return None
    blocks = grid.blocks(weight)
    scales, ends = grid.scales(blocks).expand_as(blocks), grid.ends(blocks)
    nearest = grid.whole(grid.nearest(blocks, scales), weight.shape[1])
    stays = (weight == 0) | grid.whole(blocks == ends, weight.shape[1])
    made = torch.empty_like(weight)
    made[:, order] = _compensate(
        weight[:, order].T.contiguous(),
        grid.whole(scales, weight.shape[1])[:, order].T.contiguous(),
        stays[:, order].T.contiguous(),
        factor.to(weight.dtype),
        grid,
    ).T
    del blocks, scales, stays, factor
    before, after = _losses(nearest - weight, moments), _losses(made - weight, moments)
    better = after < before
    kept = torch.where(better, after, before).sum()
    share = float((kept / before.sum()).sqrt()) if before.sum() > 0 else 1.0
    return torch.where(better[:, None], made, nearest), share


def shrunk(moments: Tensor, row_count: int) -> Tensor:
    """Return second moments, which are changed, as so many rows show them: the fewer, the nearer to independent inputs.

    As many rows as inputs halve what couples two inputs. What is made up for by chance couplings is lost on other data.
    """
    kept = moments.diagonal().clone()
    moments.mul_(row_count / (row_count + len(moments))).diagonal().copy_(kept)
    return moments


def _inverse_factor(moments: Tensor, order: Tensor) -> Tensor | None:
    """Return the upper triangular U with UᵀU the inverse of the damped moments in that order; None without one."""
    mean = float(moments.diagonal().mean()) if len(moments) else 0.0
    if mean <= 0:
        return None
    # With the order turned round, the factor of the inverse is the inverse of a factor.
    turned = moments[order.flip(0)][:, order.flip(0)]
    added, damping = 0.0, DAMPING
    while damping <= MOST_DAMPING:
        turned.diagonal().add_((damping - added) * mean)
        lower, failed = torch.linalg.cholesky_ex(turned)
        if not failed:
            del turned
            upper = lower.flip(0, 1)
            del lower
            one = torch.eye(len(upper), dtype=upper.dtype)
            inverse: Tensor = torch.linalg.solve_triangular(upper, one, upper=True)
            return inverse
        added, damping = damping, damping * 10
    return None


def _compensate(weight: Tensor, scale: Tensor, stays: Tensor, factor: Tensor, grid: Grid) -> Tensor:
    """Return the weight rounded but for what stays; all are [inputs, outputs], and the weight is used up."""
    given = torch.where(stays, weight, 0.0)
    for start in range(0, len(weight), COLUMNS):
        end = min(start + COLUMNS, len(weight))
        losses = torch.empty_like(weight[start:end])
        for at in range(start, end):
            rounded = torch.where(stays[at], given[at], grid.nearest(weight[at], scale[at]))
            losses[at - start] = (weight[at] - rounded) / factor[at, at]
            weight[at] = rounded
            weight[at + 1 : end].addr_(factor[at, at + 1 : end], losses[at - start], alpha=-1)
        weight[end:].addmm_(factor[start:end, end:].T, losses, alpha=-1)
    return weight


def _losses(change: Tensor, moments: Tensor) -> Tensor:
    """Return the mean square of what each output answers otherwise."""
    return ((change @ moments.to(change.dtype)) * change).sum(dim=1).clamp_(min=0)
