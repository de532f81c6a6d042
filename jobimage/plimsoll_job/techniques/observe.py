"""What layers receive while the model answers the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Arrays

#: The arguments of one call of a module.
Batch = tuple[torch.Tensor, ...]


def tensors_of(arrays: Arrays) -> Batch:
    """Return the arrays as a module takes them."""
    return tuple(torch.from_numpy(array) for array in arrays.values())


def batches_of(samples: Samples) -> Iterator[Batch]:
    """Yield all inputs in batches, in order."""
    return map(tensors_of, samples.batches())


def observe_inputs(
    module: nn.Module, observers: Mapping[str, Callable[[torch.Tensor], None]], batches: Iterable[Batch]
) -> None:
    """Give each named layer's first input to its observer, at every call of every batch; the module stays as it is."""
    with torch.no_grad(), watching(module, observers, lambda name, inputs: observers[name](inputs)):
        for batch in batches:
            module(*batch)


@contextmanager
def watching(module: nn.Module, names: Iterable[str], watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Hand the input of each of the layers, at each call, to `watch`."""
    layers = dict(module.named_modules())

    def observe(name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        watch(name, inputs[0].detach())

    hooks = [layers[name].register_forward_pre_hook(partial(observe, name)) for name in names]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
