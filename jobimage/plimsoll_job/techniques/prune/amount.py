"""What an amount is a share of: parameters, multiply-accumulates, or bytes of the exported float model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from plimsoll_api.spec import AmountOf
from plimsoll_job.export.onnx_export import trace_onnx
from plimsoll_job.figures import count_parameters, macs_by_layer
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.groups import ChannelGroup
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
    """The share that cuts take away, told from the shapes of the tensors, without cutting.

    `scale` corrects it once a real cut was measured: an export folds some of them away.
    """

    def __init__(
        self, module: nn.Module, signature: Signature, groups: Iterable[ChannelGroup], of: AmountOf, spec_field: str
    ) -> None:
        self.scale = 1.0
        layers = dict(module.named_modules())
        self._members = [
            (group.root, group.channel_count, (member.name, member.tensor), member.axis, np.array(member.channels))
            for group in groups
            for member in (*group.producers, *group.consumers, *group.others)
        ]
        macs = macs_by_layer(module, signature, f"{spec_field}.of") if of is AmountOf.MACS else {}
        #: By tensor, its shape, and what one of its numbers weighs.
        self._tensors: dict[tuple[str, str], tuple[tuple[int, ...], float]] = {}
        seen: set[int] = set()
        for place in dict.fromkeys(place for _, _, place, _, _ in self._members):
            name, tensor = place
            held = dict(layers[name].named_parameters(recurse=False)).get(tensor)
            # Of layers that share a weight the first one counts it, but each computes with it.
            if held is not None and (of is AmountOf.MACS or id(held) not in seen):
                seen.add(id(held))
                weight = 1.0
                if of is AmountOf.MACS:
                    weight = macs.get(name, 0) / held.numel() if held.ndim > 1 else 0.0
                self._tensors[place] = tuple(held.shape), weight
        self._whole = sum(macs.values()) if of is AmountOf.MACS else count_parameters(module)

    def share_of(self, cuts: Sequence[Cut]) -> float:
        """Return the share that the cuts take away."""
        channels_of = {one.layer: list(one.channels) for one in cuts}
        gone: dict[tuple[str, str], dict[int, int]] = {}
        for root, channel_count, place, axis, channels in self._members:
            if root in channels_of and place in self._tensors:
                is_gone = np.zeros(channel_count, dtype=bool)
                is_gone[channels_of[root]] = True
                by_axis = gone.setdefault(place, {})
                by_axis[axis] = by_axis.get(axis, 0) + int(is_gone[channels].sum())
        lost = 0.0
        for place, by_axis in gone.items():
            shape, weight = self._tensors[place]
            left = [size - by_axis.get(axis, 0) for axis, size in enumerate(shape)]
            lost += weight * (math.prod(shape) - math.prod(left))
        return self.scale * lost / self._whole
