"""Consumers make good for the channels that are gone: their weights are refitted by least squares, in calling order.

Each learns to answer to what the pruned model gives it as it answered to what the whole model gave it (He et al. 2017,
arXiv 1707.06168; ThiNet, Luo et al. 2017, arXiv 1707.06342): so it also makes good for what the layers before it could
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.observe import Batch, Batches, Mask, moved, watching
from plimsoll_job.techniques.padding import Padding, find_padding
from plimsoll_job.techniques.prune.groups import ChannelGroup, positions_of
from plimsoll_job.techniques.prune.readers import Reader, readers_of
from plimsoll_job.techniques.shape import Cut

#: How much the plain cut is believed, as a share of the channels' mean energy: it decides where the data is silent.
RIDGE = 1e-6


@dataclass(frozen=True)
class Refitted:
    """One consumer after its refit; errors are those of its outputs on the calibration data, over their variance."""

    layer: str
    channels_before: int
    channels_after: int
    error_of_cut: float
    error: float
    row_count: int


def compensate(
    whole: nn.Module,
    pruned: nn.Module,
    groups: Sequence[ChannelGroup],
    cuts: Sequence[Cut],
    batches: Batches,
    *,
    padding: Padding | None = None,
) -> list[Refitted]:
    """Refit, in place, every layer of the pruned module that lost inputs; each takes one pass through both modules.

    Layers that share a weight are refitted as one, to what all of them read.
    """
    gone = positions_of(groups, cuts)
    readers = {name: reader for name, reader in readers_of(whole, groups).items() if gone[reader.place]}
    refitted = []
    known = find_padding(whole, readers, batches) if padding is None else padding
    with moved(batches.device, whole, pruned):
        for names in _of_one_weight(pruned, readers, _in_calling_order(whole, readers, next(iter(batches)))):
            first = names[0]
            reader = replace(readers[first], takes_mean=all(readers[name].takes_mean for name in names))
            lost = {position // reader.spread for position in gone[reader.place]}
            kept = [channel for channel in range(reader.channel_count) if channel not in lost]
            fit = _Fit(reader, kept, names, batches.device)
            fit.observe(whole, pruned, batches, known)
            source = whole.get_submodule(first)
            outputs_lost = reader.outputs_lost(gone, source)
            found = fit.write(source, [pruned.get_submodule(name) for name in names], outputs_lost)
            refitted += [replace(found, layer=name) for name in names]
    return refitted


class _Fit:
    """The least-squares fit of what one layer read in the whole model, by what it reads in the pruned one.

    `names` are those of all layers of its weight.
    """

    def __init__(self, reader: Reader, kept: Sequence[int], names: Sequence[str], device: torch.device) -> None:
        self.reader = reader
        self.names = names
        self.kept = list(kept)
        self.moments = Moments(reader.channel_count + len(kept), device)

    def observe(self, whole: nn.Module, pruned: nn.Module, batches: Batches, padding: Padding) -> None:
        """Take in what the layer reads in both models."""
        wanted: list[torch.Tensor] = []
        given: list[torch.Tensor] = []
        mask: Mask = None

        def take(rows: list[torch.Tensor], name: str, inputs: torch.Tensor) -> None:
            rows.append(self.reader.rows(inputs, padding.counted(name, mask, inputs)))

        with (
            torch.no_grad(),
            watching(whole, self.names, partial(take, wanted)),
            watching(pruned, self.names, partial(take, given)),
        ):
            for batch, of_batch in batches.masked():
                mask = of_batch
                whole(*batch)
                pruned(*batch)
                for pair in zip(wanted, given, strict=True):
                    self.moments.add(torch.cat(pair, dim=1))
                wanted.clear()
                given.clear()

    def write(self, source: nn.Module, targets: Sequence[nn.Module], outputs_lost: set[int]) -> Refitted:
        """Give the pruned layers, of one weight, the weights that make the most of what they read."""
        count, width = self.reader.channel_count, len(self.kept)
        second = self.moments.second(centred=self.reader.takes_mean)
        wanted, cross, given = second[:count, :count], second[:count, count:], second[count:, count:]
        plain = torch.eye(count, dtype=torch.float64, device=second.device)[:, self.kept]
        ridge = float(RIDGE * given.diagonal().mean()) or 1.0
        ridges = ridge * torch.eye(width, device=second.device)
        mix = torch.linalg.solve(given + ridges, cross + ridge * plain, left=False)
        effect = self.reader.effect(source)
        energy = float((effect * self.moments.second(centred=True)[:count, :count]).sum())

        def error(mix: torch.Tensor) -> float:
            rest = wanted - mix @ cross.T - cross @ mix.T + mix @ given @ mix.T
            return max(0.0, float((effect * rest).sum())) / energy if energy > 0 else 0.0

        outputs = [output for output in range(len(self.reader.weight(source))) if output not in outputs_lost]
        weight = self.reader.weight(source)[outputs]
        with torch.no_grad():
            self.reader.put(targets[0], torch.einsum("ocs,ck->oks", weight, mix))
            if self.reader.takes_mean:
                shift = self.moments.mean[:count] - mix @ self.moments.mean[count:]
                for bias in dict.fromkeys(target.get_parameter("bias") for target in targets):
                    bias.add_(torch.einsum("ocs,c->o", weight, shift))
        return Refitted(self.reader.name, count, width, error(plain), error(mix), self.moments.row_count)


def _of_one_weight(module: nn.Module, readers: Mapping[str, Reader], names: Sequence[str]) -> list[list[str]]:
    """Return the names in runs of one weight, each where the last of it stands: what it reads is as it will be then."""
    together: dict[int, list[str]] = {}
    for name in names:
        weight = id(module.get_submodule(name).get_parameter(readers[name].tensor))
        together[weight] = [*together.pop(weight, []), name]
    return list(together.values())


def _in_calling_order(module: nn.Module, names: Iterable[str], batch: Batch) -> list[str]:
    called: dict[str, None] = {}
    with torch.no_grad(), watching(module, names, lambda name, _: called.setdefault(name)):
        module(*(one[:1] for one in batch))
    return list(called)
