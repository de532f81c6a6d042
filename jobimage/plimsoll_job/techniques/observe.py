"""What layers receive while the model answers the calibration data, on the pod's GPU where it has one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Arrays

#: The arguments of one call of a module.
Batch = tuple[torch.Tensor, ...]
#: Which tokens of a batch count, [samples, tokens]; None where every position is data.
Mask = NDArray[np.bool_] | None

HOST = torch.device("cpu")
#: What torch's attention projects, in the order of its arguments.
ATTENTION_INPUTS = ("query", "key", "value")
#: What torch says of tensors that are not all on one device.
OTHER_DEVICE = ("same device", "expected device")


def tensors_of(arrays: Arrays) -> Batch:
    """Return the arrays as a module takes them."""
    return tuple(torch.from_numpy(array) for array in arrays.values())


@dataclass(frozen=True)
class Batches:
    """Inputs in batches, read anew by each pass over them, and the device on which a model answers them.

    `padded` are their samples where some of the tokens are padding.
    """

    read: Callable[[], Iterable[Batch]]
    device: torch.device = HOST
    padded: Samples | None = None

    @classmethod
    def of(cls, samples: Samples, device: torch.device = HOST) -> Batches:
        """Return all inputs of the samples, in order."""
        padded = None if samples.mask is None else samples
        return cls(lambda: map(tensors_of, samples.batches()), device, padded)

    def __iter__(self) -> Iterator[Batch]:
        return (tuple(tensor.to(self.device) for tensor in batch) for batch in self.read())

    def masked(self) -> Iterator[tuple[Batch, Mask]]:
        """Yield each batch with its mask."""
        masks = itertools.repeat(None) if self.padded is None else (part.mask for part in self.padded.parts())
        return zip(self, masks, strict=False)


def counted_answers(answers: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Return the answers to tokens that count, [tokens, classes]; those to whole samples as they are."""
    if mask is None or answers.ndim != mask.ndim + 1 or answers.shape[:2] != mask.shape:
        return answers
    return answers[torch.from_numpy(mask).to(answers.device)]


def rows_of(inputs: torch.Tensor, channel_axis: int, counted: torch.Tensor | None) -> torch.Tensor:
    """Return the inputs as [rows, channels], those that count where that is said."""
    rows = inputs.movedim(channel_axis, -1)
    if counted is None:
        return rows.reshape(-1, rows.shape[-1])
    return rows[counted.movedim(channel_axis, -1)[..., 0].expand(rows.shape[:-1])]


@contextmanager
def watching(module: nn.Module, names: Iterable[str], watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Hand the first input of each of the layers, at each call, to `watch`.

    Of torch's attention each input has a name of its own, such as `attention.key`.
    """

    def observe(name: str, given: torch.Tensor) -> None:
        watch(name, given.detach())

    with replacing(module, names, observe):
        yield


@contextmanager
def replacing(
    module: nn.Module, names: Iterable[str], change: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Have the layers read what `change` makes of what `watching` names, at each call; the same where it is None."""
    layers = dict(module.named_modules())

    def exchange(name: str, place: int, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        key = ATTENTION_INPUTS[place]
        is_placed = place < len(inputs) or not named
        changed = change(name, inputs[place] if is_placed else named[key])
        if changed is None:
            return None
        if is_placed:
            return (*inputs[:place], changed, *inputs[place + 1 :]), named
        return inputs, {**named, key: changed}

    hooks = []
    for name in names:
        owner, place = _watched(layers, name)
        hooks.append(owner.register_forward_pre_hook(partial(exchange, name, place), with_kwargs=True))
    with _kept(hooks):
        yield


@contextmanager
def replacing_answers(
    module: nn.Module, names: Iterable[str], change: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Have each of the layers answer what `change` makes of its answer, or of the first part of one of several."""

    def exchange(name: str, _: nn.Module, __: Any, answer: Any) -> Any:
        parts = answer if isinstance(answer, tuple | list) else (answer,)
        changed = change(name, parts[0]) if isinstance(parts[0], torch.Tensor) else None
        if changed is None:
            return None
        return changed if parts is not answer else type(answer)((changed, *parts[1:]))

    layers = dict(module.named_modules())
    with _kept([layers[name].register_forward_hook(partial(exchange, name)) for name in names]):
        yield


@contextmanager
def _kept(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep the hooks meanwhile."""
    # Else torch's encoders hand nested tensors to their layers where texts are padded.
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
        for handle in hooks:
            handle.remove()


def _watched(layers: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, int]:
    """Return the layer of which the input is, and its place among the arguments."""
    owner, _, own = name.rpartition(".")
    if own in ATTENTION_INPUTS and isinstance(layers.get(owner), nn.MultiheadAttention):
        return layers[owner], ATTENTION_INPUTS.index(own)
    return layers[name], 0


@contextmanager
def moved(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Have the modules compute on the device for a while; their tensors on the host wait, and are theirs again after.

    What was changed there is changed here, also after an error. UserError when they cannot compute there.
    """
    if device.type == HOST.type:
        yield
        return
    there: dict[torch.Tensor, tuple[torch.Tensor, int]] = {}
    places: list[tuple[nn.Module, str, torch.Tensor]] = []
    try:
        for layer, name, tensor in _tensors_of(modules):
            if tensor not in there:
                copy = tensor.detach().to(device)
                if isinstance(tensor, nn.Parameter):
                    copy = nn.Parameter(copy, tensor.requires_grad)
                there[tensor] = copy, copy._version
            places.append((layer, name, tensor))
            setattr(layer, name, there[tensor][0])
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in OTHER_DEVICE):
            raise
        raise UserError(
            "spec.model.architecture: the model cannot compute on the pod's GPU: it holds tensors that are neither "
            f"parameters nor buffers ({error}); register them as buffers, or ask for no GPU",
            reason="GpuUnusable",
        ) from error
    finally:
        for layer, name, tensor in places:
            setattr(layer, name, tensor)
        with torch.no_grad():
            for tensor, (copy, version) in there.items():
                if copy._version != version:
                    tensor.copy_(copy)
        # ONNX Runtime, which serves on the same GPU, has an allocator of its own.
        there.clear()
        torch.cuda.empty_cache()


def _tensors_of(modules: Iterable[nn.Module]) -> list[tuple[nn.Module, str, torch.Tensor]]:
    """Return every parameter and buffer with the layer and the name that it has there; one of two layers twice."""
    layers = dict.fromkeys(layer for module in modules for layer in module.modules())
    return [
        (layer, name, tensor)
        for layer in layers
        for named in (layer.named_parameters, layer.named_buffers)
        for name, tensor in named(recurse=False, remove_duplicate=False)
    ]
