"""Padding is no data: which positions of what layers read are left out of whatever is computed from them.

Padded tokens lie wherever a model puts them: [batch, tokens, …], the other way around, side by side, behind a token
for the class. A layout is taken to be that of a layer only where it is shown: other values at its padded positions
leave the answers as they are. Where the answers depend on what stands there, as in a recurrent layer that reads on,
padding is data like any other, and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.layout import Layout, layouts_of, settle
from plimsoll_job.techniques.observe import (
    Batches,
    Mask,
    counted_answers,
    moved,
    replacing,
    replacing_answers,
    tensors_of,
    watching,
)

#: Hears the name, the input, and which positions of it count (as `Padding.counted` tells them).
Watch = Callable[[str, torch.Tensor, torch.Tensor | None], None]

#: Has layers read, or answer, something else for a while.
Exchanging = Callable[
    [nn.Module, Iterable[str], Callable[[str, torch.Tensor], torch.Tensor | None]], AbstractContextManager[None]
]

#: How many samples show where padding is: a number that few axes have.
PROBED = 5
#: Answers that change by less, of how much they differ from each other, do not depend on what was changed.
UNCHANGED = 1e-3
#: Names that a note lists.
MOST_NAMES = 5


@dataclass(frozen=True)
class Padding:
    """Where padding is in what layers read, by their names; `read` are those in which it counts: answers depend on it.

    `share` of the tokens are padding.
    """

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    share: float = 0.0

    def counted(self, name: str, mask: Mask, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return which positions of the inputs count, of size 1 along axes that are all alike; None where all do."""
        layout = self.layouts.get(name)
        if mask is None or layout is None or not layout.fits(inputs.shape, len(mask), mask.shape[1]):
            return None
        return torch.from_numpy(layout.counted(mask)).to(inputs.device)

    def to_details(self) -> dict[str, Any]:
        """Return what a record tells of it, nothing where no token is padding."""
        if not self.share:
            return {}
        return {"padding": {"share": round(self.share, 6), "leftOutIn": len(self.layouts), "countsIn": list(self.read)}}

    def notes(self, do: str = "read") -> tuple[str, ...]:
        """Return a sentence on the layers in which padding counts: in what they read, or what else they do."""
        if not self.read:
            return ()
        shown = ", ".join(self.read[:MOST_NAMES])
        more = f" and {len(self.read) - MOST_NAMES} more" if len(self.read) > MOST_NAMES else ""
        return (f"Padded tokens count as data in what {shown}{more} {do}: the answers depend on what stands there.",)


def find_padding(module: nn.Module, names: Iterable[str], batches: Batches) -> Padding:
    """Return where padding is in what `watching` names, as a few of the samples show it."""
    layers = dict(module.named_modules())
    return _find(module, {name: channel_axis(layers.get(name)) for name in names}, batches, replacing)


def find_padding_in_answers(module: nn.Module, widths: Mapping[str, int], batches: Batches) -> Padding:
    """Return where padding is in what the layers answer; `widths` names the axis of each that is no position."""
    return _find(module, widths, batches, replacing_answers)


def _find(module: nn.Module, free: Mapping[str, int], batches: Batches, exchanging: Exchanging) -> Padding:
    if batches.padded is None:
        return Padding()
    assert batches.padded.mask is not None  # noqa: S101 — padded samples have one
    probe = typical(batches.padded)
    with moved(batches.device, module), torch.no_grad():
        candidates, changes = _candidates(module, free, probe, batches, exchanging)
        layouts = settle(candidates, changes)
    read = tuple(name for name, some in candidates.items() if some and name not in layouts)
    return Padding(layouts, read, 1 - float(batches.padded.mask.mean()))


def observe_inputs(
    module: nn.Module, names: Iterable[str], watch: Watch, batches: Batches, padding: Padding | None = None
) -> None:
    """Hand what `watching` names, at every call of every batch, to `watch`, on the batches' device.

    With it comes which of its positions count; where padding is, is found out when it is not known yet.
    """
    names = list(names)
    known = find_padding(module, names, batches) if padding is None else padding
    mask: Mask = None

    def tell(name: str, inputs: torch.Tensor) -> None:
        watch(name, inputs, known.counted(name, mask, inputs))

    with moved(batches.device, module), torch.no_grad(), watching(module, names, tell):
        for batch, of_batch in batches.masked():
            mask = of_batch
            module(*batch)


def typical(samples: Samples) -> Samples:
    """Return a few samples with as much, as little, and as usual an amount of padding as there is."""
    assert samples.mask is not None  # noqa: S101 — asked of padded samples only
    count = min(len(samples), PROBED if samples.mask.shape[1] != PROBED else PROBED - 1)
    by_length = np.argsort(samples.mask.sum(axis=1), kind="stable")
    return samples.take(by_length[np.linspace(0, len(by_length) - 1, count).round().astype(int)])


def differ(given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether answers are others than those expected, measured by how much these differ from each other."""
    given, expected = given.double(), expected.double()
    spread = (expected - expected.mean(dim=0)).square().mean().sqrt() or expected.square().mean().sqrt()
    return not bool((given - expected).abs().max() <= UNCHANGED * spread)


def _candidates(
    module: nn.Module, free: Mapping[str, int], probe: Samples, batches: Batches, exchanging: Exchanging
) -> tuple[dict[str, list[Layout]], Callable[[dict[str, Layout]], bool]]:
    """Return the layouts that each of the names may have, and what tells whether some are shown."""
    assert probe.mask is not None  # noqa: S101 — of padded samples
    mask = probe.mask
    batch = tuple(tensor.to(batches.device) for tensor in tensors_of(probe.inputs))
    candidates: dict[str, list[Layout]] = {}

    def watch(name: str, found: torch.Tensor) -> None:
        if found.is_floating_point():
            candidates.setdefault(name, layouts_of(found.shape, len(mask), mask.shape[1], [free[name]]))

    with exchanging(module, free, watch):
        expected = counted_answers(module(*batch), mask)

    def holds(asked: dict[str, Layout]) -> bool:
        chance = torch.Generator().manual_seed(0)
        padding = Padding(asked)

        def change(name: str, inputs: torch.Tensor) -> torch.Tensor | None:
            counted = padding.counted(name, mask, inputs)
            return None if counted is None else _others(inputs, counted, chance)

        with exchanging(module, asked, change):
            return not differ(counted_answers(module(*batch), mask), expected)

    return candidates, holds


def channel_axis(layer: nn.Module | None) -> int:
    """Return the axis of the channels in what the layer reads."""
    return 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1


def _others(inputs: torch.Tensor, counted: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Return the inputs with any others of their size where they do not count."""
    values = inputs[counted.expand(inputs.shape)]
    low, high = values.min(), values.max()
    others = torch.rand(inputs.shape, generator=chance).to(inputs)
    return torch.where(counted, inputs, low + (high - low) * others)
