"""Batch norm after a change of the layers before it: its running statistics, estimated anew from data.

What is pruned, or replaced by a product of smaller layers, answers with another mean and another variance than in the
training, which the running statistics no longer take away. They are set so that what each batch norm answers has, over
the data, the mean and the variance that it had before the change, channel by channel (Li et al. 2020, arXiv 2007.02491;
Jordan et al. 2023, arXiv 2211.08403). So nothing moves where nothing changed, however little data there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from plimsoll_api.spec import BatchNorm
from plimsoll_job.load.examples import example_of
from plimsoll_job.techniques.observe import Batches, moved
from plimsoll_job.techniques.shape import Bench

#: Samples of which statistics are taken.
MOST_SAMPLES = 1_024
#: A channel whose mean moved by less than this of its deviation, and its variance by less of itself, did not change.
UNCHANGED = 1e-3


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of each channel over some rows, float64, on the host."""

    count: int
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor) -> Statistics:
        """Return those of inputs [batch, channels, …]."""
        others = [axis for axis in range(inputs.ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs.detach(), dim=others, correction=0)
        return cls(inputs.numel() // inputs.shape[1], mean.cpu().double(), variance.cpu().double())

    @classmethod
    def of_all(cls, parts: Sequence[Statistics]) -> Statistics:
        """Return those of the rows of all parts."""
        counts = torch.tensor([part.count for part in parts], dtype=torch.float64)[:, None]
        means, variances = (torch.stack([getattr(part, one) for part in parts]) for one in ("mean", "variance"))
        mean = (means * counts).sum(dim=0) / counts.sum()
        variance = ((variances + (means - mean).square()) * counts).sum(dim=0) / counts.sum()
        return cls(int(counts.sum()), mean, variance)

    def without(self, channels: Collection[int]) -> Statistics:
        """Return those of the other channels."""
        left = [channel for channel in range(len(self.mean)) if channel not in channels] if channels else slice(None)
        return Statistics(self.count, self.mean[left], self.variance[left])


#: What one batch norm read before a change, and after it.
Movement = tuple[Statistics, Statistics]
#: What each batch norm read, by its name: call by call, in the order of the batches.
Seen = Mapping[str, Sequence[Statistics]]
#: The channels of layers that are gone, by the layers' names.
Gone = Mapping[str, Collection[int]]
NONE_GONE: Gone = {}


@dataclass(frozen=True)
class Before:
    """What the batch norms of a module read before a step changes it; nothing where they are to stay as they are.

    Of random inputs where there is no data: they tell which batch norms read otherwise, and no statistics.
    """

    batches: Batches | None = None
    seen: Seen = field(default_factory=dict)
    sample_count: int = 0

    @classmethod
    def of(cls, setting: BatchNorm, module: nn.Module, bench: Bench) -> Before:
        """Look at calibration data, or at training data where the job gives no other."""
        if setting is BatchNorm.KEEP or not batch_norms(module):
            return cls()
        samples, device = bench.calibration or bench.train, bench.ranks.device
        if samples is None:
            batches = Batches(lambda: [example_of(bench.signature)], device)
            return cls(batches, see(module, batches))
        samples = samples.draw(min(len(samples), MOST_SAMPLES), bench.seed)
        batches = Batches.of(samples, device)
        return cls(batches, see(module, batches), len(samples))

    def renew(self, module: nn.Module, gone: Gone = NONE_GONE) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Set the statistics of the changed module, in place; return what its record tells of it, and its notes."""
        moved_by = movements(module, self.seen, self.batches, gone) if self.batches else {}
        if not moved_by:
            return {}, ()
        if not self.sample_count:
            return {}, (
                f"Batch norms keep the statistics of the training though what they read has changed: without "
                f"data.calibration and data.train there is nothing to estimate them from ({', '.join(moved_by)}).",
            )
        reestimate(module, moved_by)
        return {"batchNorm": {"reestimated": list(moved_by), "samples": self.sample_count}}, ()


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that normalise by running statistics, by name, those that are frozen among them."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if {"running_mean", "running_var"} <= {one for one, _ in layer.named_buffers(recurse=False)}
    }


def see(module: nn.Module, batches: Batches) -> Seen:
    """Return what each batch norm reads now."""
    seen = defaultdict[str, list[Statistics]](list)
    _walk(module, batches, lambda name, _, inputs: seen[name].append(Statistics.of(inputs)))
    return seen


def movements(module: nn.Module, seen: Seen, batches: Batches, gone: Gone = NONE_GONE) -> dict[str, Movement]:
    """Return what each batch norm read and will read, of those that read otherwise than was seen.

    The module answers the same batches as before. While one passes, each batch norm normalises by the statistics of
    that batch, so that those after it read what they will read in the end: one pass is enough, however they stand.
    """
    own = {name: _Own.of(norm) for name, norm in batch_norms(module).items()}
    found = defaultdict[str, list[Movement]](list)

    def correct(name: str, norm: nn.Module, inputs: torch.Tensor) -> None:
        was = seen[name][len(found[name])].without(gone.get(name, ()))
        found[name].append((was, Statistics.of(inputs)))
        own[name].corrected(*found[name][-1]).give(norm)

    try:
        _walk(module, batches, correct)
    finally:
        for name, norm in batch_norms(module).items():
            own[name].give(norm)
    pooled = {name: tuple(map(Statistics.of_all, zip(*pairs, strict=True))) for name, pairs in found.items()}
    return {name: (was, now) for name, (was, now) in pooled.items() if not _alike(was, now)}


def reestimate(module: nn.Module, moved_by: Mapping[str, Movement]) -> None:
    """Set the running statistics of these batch norms, in place."""
    for name, norm in batch_norms(module).items():
        if name in moved_by:
            _Own.of(norm).corrected(*moved_by[name]).give(norm)


@dataclass(frozen=True)
class _Own:
    """The running statistics of one batch norm, float64; `eps` it adds to each variance."""

    mean: torch.Tensor
    variance: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.Module) -> _Own:
        mean, variance = (norm.get_buffer(name).cpu().double() for name in ("running_mean", "running_var"))
        return cls(mean, variance, float(getattr(norm, "eps", 0.0)))

    def give(self, norm: nn.Module) -> None:
        norm.get_buffer("running_mean").copy_(self.mean)
        norm.get_buffer("running_var").copy_(self.variance)

    def corrected(self, was: Statistics, now: Statistics) -> _Own:
        """Return those by which the norm makes of the new input what these make of the old one.

        A channel that overflows keeps its own.
        """
        spread = self.variance + self.eps
        # What did not vary before does not say how much it should.
        growth = torch.where(was.variance > 0, now.variance / was.variance, 1.0)
        grown = (spread * growth).clamp(min=self.eps)
        mean = now.mean - (was.mean - self.mean) * (grown / spread).sqrt()
        finite = mean.isfinite() & grown.isfinite()
        return _Own(
            torch.where(finite, mean, self.mean), torch.where(finite, grown - self.eps, self.variance), self.eps
        )


def _walk(module: nn.Module, batches: Batches, meet: Callable[[str, nn.Module, torch.Tensor], None]) -> None:
    """Have the module answer, and hand each batch norm with what it is about to read to `meet`."""
    hooks: list[RemovableHandle] = []
    with moved(batches.device, module), torch.no_grad():
        try:
            for name, norm in batch_norms(module).items():
                hooks.append(norm.register_forward_pre_hook(partial(_hook, meet, name)))
            for batch in batches:
                module(*batch)
        finally:
            for hook in hooks:
                hook.remove()


def _hook(
    meet: Callable[[str, nn.Module, torch.Tensor], None], name: str, norm: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> None:
    meet(name, norm, inputs[0])


def _alike(was: Statistics, now: Statistics) -> bool:
    moved_little = (now.mean - was.mean).abs() <= UNCHANGED * was.variance.sqrt()
    grown_little = (now.variance - was.variance).abs() <= UNCHANGED * was.variance
    return bool((moved_little & grown_little).all())
