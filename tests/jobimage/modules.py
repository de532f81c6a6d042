"""Small architectures whose couplings are known."""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """A stem and a block that is added to it: their channels can only go together."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(48, 32, 3, padding=1), nn.BatchNorm2d(32))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(32, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        total = torch.relu(stem + self.outer(self.inner(stem)))
        logits: torch.Tensor = self.head(self.pool(total).flatten(1))
        return logits


class Flattened(nn.Module):
    """A convolution whose channels each become four features of the next layer."""

    input_shape = (1, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.hidden = nn.Linear(8 * 4, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(nn.functional.max_pool2d(self.conv(images), 2)).flatten(1)
        logits: torch.Tensor = self.head(torch.relu(self.hidden(features)))
        return logits


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual()


def not_a_module() -> int:
    return 3


def failing() -> nn.Module:
    raise OSError("no disk")
