"""What calibration data makes the channels do that enter a layer, streamed over every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from plimsoll_job.techniques.observe import Batches, rows_of
from plimsoll_job.techniques.padding import Padding, channel_axis, observe_inputs


class InputStatistic:
    """The mean of something of each channel that enters one layer, over every batch it has seen.

    Sums are kept, not means of batches: a short last batch weighs by its samples.
    """

    def __init__(self, layer: nn.Module | None, of: Callable[[torch.Tensor], torch.Tensor] = torch.abs) -> None:
        self._of = of
        self._channel_axis = channel_axis(layer)
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, inputs: torch.Tensor, counted: torch.Tensor | None = None) -> None:
        """Take in one batch, or those of its positions that count."""
        rows = rows_of(self._of(inputs), self._channel_axis, counted)
        total = rows.sum(dim=0, dtype=torch.float64)
        self._total = total if self._total is None else self._total + total
        self._count += len(rows)

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
    module: nn.Module,
    names: Iterable[str],
    batches: Batches,
    of: Callable[[torch.Tensor], torch.Tensor],
    padding: Padding | None = None,
) -> dict[str, torch.Tensor]:
    """Return the mean of each channel of each input that `watching` names; one of a layer never called has none."""
    layers = dict(module.named_modules())
    statistics: dict[str, InputStatistic] = {}

    def watch(name: str, inputs: torch.Tensor, counted: torch.Tensor | None) -> None:
        statistics.setdefault(name, InputStatistic(layers.get(name), of)).add(inputs, counted)

    observe_inputs(module, names, watch, batches, padding)
    return {name: statistic.mean for name, statistic in statistics.items()}
