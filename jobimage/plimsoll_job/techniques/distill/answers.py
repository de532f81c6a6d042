"""What a model answers, and what layers inside it answer on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature

#: Layers whose answers have the width before the positions, where these are in one row as those of a sequence are.
WIDTH_FIRST = (
    *CONVOLUTIONS,
    nn.BatchNorm1d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveAvgPool1d,
)


@dataclass(frozen=True)
class Answers:
    """The output for a batch, the answers of the named layers, and which tokens count where the batch holds some."""

    output: torch.Tensor
    hidden: Mapping[str, torch.Tensor]
    mask: torch.Tensor | None = None


@dataclass(frozen=True)
class Hidden:
    """A layer that answers with a tensor, the shape of its answer to one sample, and whether the width comes first."""

    name: str
    shape: tuple[int, ...]
    width_first: bool

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape without the width: positions of an image [C, H, W] or of a sequence [L, D], () of a vector."""
        return self.shape[1:] if self.width_first else self.shape[:-1]

    @property
    def width_axis(self) -> int:
        """The axis of the width in a batch of answers."""
        return 1 if self.width_first else -1

    @property
    def width(self) -> int:
        """Its channels or features."""
        return self.shape[0] if self.width_first else self.shape[-1]


@contextlib.contextmanager
def listening(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a map that holds the last answer of each named layer; a layer that is called twice tells its last."""
    heard: dict[str, torch.Tensor] = {}

    def hear(name: str, _: nn.Module, __: Any, answer: Any) -> None:
        tensor = first_tensor(answer)
        if tensor is not None:
            # Moved to the end, so that the map stands in the order of execution.
            heard.pop(name, None)
            heard[name] = tensor

    layers = dict(module.named_modules())
    hooks = [layers[name].register_forward_hook(partial(hear, name)) for name in names]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(answer: Any) -> torch.Tensor | None:
    """Return the tensor, or the first one of a tuple or of a map; None where there is none."""
    if isinstance(answer, torch.Tensor):
        return answer
    parts = answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, list | tuple) else ()
    return next((part for part in parts if isinstance(part, torch.Tensor)), None)


def hidden_layers(module: nn.Module, signature: Signature) -> list[Hidden]:
    """Return the innermost layers before the output, in the order of execution."""
    found, output = _shapes(module, signature, _innermost(module))
    # What comes after the last layer of another size than the output is the output itself.
    while found and torch.Size(found[-1].shape).numel() == output.numel():
        found.pop()
    return found


def hidden_layer(module: nn.Module, signature: Signature, name: str) -> Hidden | None:
    """Return the layer of this name; None when there is none that answers with a tensor of at least one axis."""
    if name not in dict(module.named_modules()):
        return None
    found, _ = _shapes(module, signature, [name])
    return found[0] if found else None


def _innermost(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if name and not any(layer.children())]


def _shapes(module: nn.Module, signature: Signature, names: Collection[str]) -> tuple[list[Hidden], torch.Size]:
    example = example_of(signature)
    with listening(module, {*_innermost(module), *names}) as heard, torch.no_grad():
        output = module(*example)
    found: list[Hidden] = []
    first: dict[tuple[int, ...], bool] = {}
    for name, tensor in heard.items():
        if tensor.ndim > 1 and len(tensor) == len(example[0]) and tensor.is_floating_point():
            shape = tuple(tensor.shape[1:])
            first[shape] = _has_width_first(module.get_submodule(name), shape, first)
            found.append(Hidden(name, shape, first[shape]))
    return [one for one in found if one.name in names], output.shape[1:]


def _has_width_first(layer: nn.Module, shape: tuple[int, ...], before: Mapping[tuple[int, ...], bool]) -> bool:
    """Tell whether the width is the first axis of a layer's answer to a sample, rather than the last.

    As layers of its kind have it; else as the last answer of that shape had; else as in images [C, H, W] and in
    sequences [L, D].
    """
    if isinstance(layer, nn.Linear | nn.Embedding):
        return False
    if isinstance(layer, WIDTH_FIRST):
        return True
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        # Of another axis than the last where a model's own kind of it turns images around and back.
        ends = [end == layer.normalized_shape[-1] for end in (shape[0], shape[-1])]
        if ends[0] != ends[1]:
            return ends[0]
    return before.get(shape, len(shape) > 2)
