"""What layers receive while the model answers the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from plimsoll_job.load.data import Samples

BATCH_SIZE = 256


def batches_of(samples: Samples, batch_size: int = BATCH_SIZE) -> Iterator[torch.Tensor]:
    """Yield all inputs in batches, in order."""
    for start in range(0, len(samples), batch_size):
        yield torch.from_numpy(samples.inputs[start : start + batch_size])


def observe_inputs(
    module: nn.Module, observers: Mapping[str, Callable[[torch.Tensor], None]], batches: Iterable[torch.Tensor]
) -> None:
    """Give each named layer's first input to its observer, at every call of every batch; the module stays as it is."""
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(partial(_tell, observer))
        for name, observer in observers.items()
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _tell(observer: Callable[[torch.Tensor], None], _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    observer(inputs[0].detach())
