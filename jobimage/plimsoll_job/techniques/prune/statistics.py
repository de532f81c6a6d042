"""What calibration data makes the channels do that enter a layer, streamed over every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.techniques.observe import Batches, observe_inputs


class InputStatistic:
    """The mean of something of each channel that enters one layer, over every batch it has seen.

    Sums are kept, not means of batches: a short last batch weighs by its samples.
    """

    def __init__(self, layer: nn.Module | None, of: Callable[[torch.Tensor], torch.Tensor] = torch.abs) -> None:
        self._of = of
        self._channel_axis = 1 if isinstance(layer, CONVOLUTIONS) else -1
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in one batch."""
        channels_last = self._of(inputs).movedim(self._channel_axis, -1)
        total = channels_last.reshape(-1, channels_last.shape[-1]).sum(dim=0, dtype=torch.float64)
        self._total = total if self._total is None else self._total + total
        self._count += channels_last[..., 0].numel()

    @property
    def mean(self) -> torch.Tensor:
        """The mean of each channel, float64, on the host."""
        if self._total is None:
            raise RuntimeError("no batch was seen")
        return self._total.cpu() / self._count


def is_active(inputs: torch.Tensor) -> torch.Tensor:
    """Return where the inputs are not zero."""
    return inputs != 0


def measure_inputs(
    module: nn.Module, names: Iterable[str], batches: Batches, of: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the mean of each channel of each input that `watching` names; one of a layer never called has none."""
    layers = dict(module.named_modules())
    statistics: dict[str, InputStatistic] = {}

    def watch(name: str, inputs: torch.Tensor) -> None:
        statistics.setdefault(name, InputStatistic(layers.get(name), of)).add(inputs)

    observe_inputs(module, names, watch, batches)
    return {name: statistic.mean for name, statistic in statistics.items()}
