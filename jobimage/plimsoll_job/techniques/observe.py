"""What layers receive while the model answers the calibration data, on the pod's GPU where it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Arrays

#: The arguments of one call of a module.
Batch = tuple[torch.Tensor, ...]

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
    """Inputs in batches, read anew by each pass over them, and the device on which a model answers them."""

    read: Callable[[], Iterable[Batch]]
    device: torch.device = HOST

    @classmethod
    def of(cls, samples: Samples, device: torch.device = HOST) -> Batches:
        """Return all inputs of the samples, in order."""
        return cls(lambda: map(tensors_of, samples.batches()), device)

    def __iter__(self) -> Iterator[Batch]:
        return (tuple(tensor.to(self.device) for tensor in batch) for batch in self.read())


def observe_inputs(
    module: nn.Module, names: Iterable[str], watch: Callable[[str, torch.Tensor], None], batches: Batches
) -> None:
    """Hand what `watching` names, at every call of every batch, to `watch`, on the batches' device."""
    with moved(batches.device, module), torch.no_grad(), watching(module, names, watch):
        for batch in batches:
            module(*batch)


@contextmanager
def watching(module: nn.Module, names: Iterable[str], watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Hand the first input of each of the layers, at each call, to `watch`.

    Of torch's attention each input has a name of its own, such as `attention.key`.
    """
    layers = dict(module.named_modules())

    def observe(
        name: str, place: int, _: nn.Module, inputs: tuple[torch.Tensor, ...], named: Mapping[str, torch.Tensor]
    ) -> None:
        given = inputs[place] if place < len(inputs) or not named else named[ATTENTION_INPUTS[place]]
        watch(name, given.detach())

    hooks = []
    for name in names:
        owner, place = _watched(layers, name)
        hooks.append(owner.register_forward_pre_hook(partial(observe, name, place), with_kwargs=True))
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
