"""What an amount is a share of: parameters, multiply-accumulates, or bytes of the exported float model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from plimsoll_api.spec import AmountOf
from plimsoll_job.export.onnx_export import trace_onnx
from plimsoll_job.figures import WEIGHTED, count_parameters, macs_by_layer
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.coupling import ChannelGroup
from plimsoll_job.techniques.shape import Cut

#: What people read in sentences.
WORDS = {
    AmountOf.PARAMETERS: "parameters",
    AmountOf.MACS: "multiply-accumulates",
    AmountOf.BYTES: "bytes",
}


def measure(module: nn.Module, signature: Signature, of: AmountOf, spec_field: str) -> int:
    """Return how many there are in the module; UserError where they cannot be counted."""
    if of is AmountOf.PARAMETERS:
        return count_parameters(module)
    if of is AmountOf.MACS:
        return sum(macs_by_layer(module, signature, f"{spec_field}.of").values())
    return trace_onnx(module, signature).size_bytes()


class Estimate:
    """The share that cuts take away, told from the shapes of the layers, without cutting.

    `scale` corrects it once a real cut was measured: the groups do not tell of every parameter, and an export folds
    some away.
    """

    def __init__(
        self, module: nn.Module, signature: Signature, groups: Iterable[ChannelGroup], of: AmountOf, spec_field: str
    ) -> None:
        self.scale = 1.0
        layers = dict(module.named_modules())
        self._members = [
            (group.root, group.channel_count, member.name, member.axis, np.array(member.channels))
            for group in groups
            for member in (*group.producers, *group.consumers, *group.others)
        ]
        touched = {name for _, _, name, _, _ in self._members}
        macs = macs_by_layer(module, signature, f"{spec_field}.of") if of is AmountOf.MACS else {}
        #: By layer, shapes of what shrinks with it, and what one element of that shape weighs.
        self._shapes: dict[str, list[tuple[tuple[int, ...], float]]] = {}
        seen: set[int] = set()
        for name in sorted(touched):
            layer = layers[name]
            if of is AmountOf.MACS:
                if isinstance(layer, WEIGHTED):
                    shape = tuple(layer.weight.shape)
                    self._shapes[name] = [(shape, macs.get(name, 0) / math.prod(shape))]
            else:
                # Of layers that share a weight the first one counts it.
                own = [one for one in layer.parameters(recurse=False) if id(one) not in seen]
                seen |= set(map(id, own))
                found = [tuple(parameter.shape) for parameter in own]
                self._shapes[name] = [(shape, 1.0) for shape in found if len(shape) == 1 or isinstance(layer, WEIGHTED)]
        self._whole = sum(macs.values()) if of is AmountOf.MACS else count_parameters(module)

    def share_of(self, cuts: Sequence[Cut]) -> float:
        """Return the share that the cuts take away."""
        channels_of = {one.layer: list(one.channels) for one in cuts}
        gone: dict[str, list[int]] = {}
        for root, channel_count, name, axis, channels in self._members:
            if root in channels_of:
                is_gone = np.zeros(channel_count, dtype=bool)
                is_gone[channels_of[root]] = True
                gone.setdefault(name, [0, 0])[axis] += int(is_gone[channels].sum())
        lost = 0.0
        for name, by_axis in gone.items():
            for shape, weight in self._shapes.get(name, ()):
                left = [size - less for size, less in zip(shape, by_axis, strict=False)]
                lost += weight * (math.prod(shape) - math.prod(left) * math.prod(shape[2:]))
        return self.scale * lost / self._whole
