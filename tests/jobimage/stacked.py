"""Two convolutions with a layer of any kind between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.coupling import find_groups
from plimsoll_job.techniques.prune.groups import ChannelGroup

IMAGES = single((3, 8, 8))
Between = Callable[[int], list[nn.Module]]


def net(between: Between, width: int, read: Callable[[int], int] = lambda width: width) -> nn.Module:
    """Return two convolutions with something between them, of which the first writes so many channels."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), *between(width), nn.Conv2d(read(width), 12, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    ).eval()  # fmt: skip
    module.input_shape = (3, 8, 8)  # type: ignore[assignment]
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and not name.startswith("0."):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def first_of(module: nn.Module) -> ChannelGroup:
    return next(group for group in find_groups(module, IMAGES) if group.root == "0")
