"""Small architectures whose couplings are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.data import Samples


class Residual(nn.Module):
    """A stem and a block that is added to it: their channels can only go together."""

    input_shape = (3, 8, 8)

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        inner = width * 3 // 2
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(inner, width, 3, padding=1), nn.BatchNorm2d(width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, 5)

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


class PlainCNN(nn.Module):
    """Convolutions with normalisation between them, strided and unpadded ones among them."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, bias=True), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(12, 8, 2, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(images)
        return logits


class MixedMLP(nn.Module):
    """Linear layers with normalisation, or nothing at all, between them."""

    input_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.GELU())
        self.mix = nn.Linear(24, 16)
        self.head = nn.Sequential(nn.Linear(16, 20), nn.Tanh(), nn.Linear(20, 4, bias=False))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(self.spread(rows)))
        return logits


class DepthwiseSeparable(nn.Module):
    """A depthwise convolution between two that mix channels, as in MobileNet."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.relu(self.depthwise(torch.relu(self.first(images))))
        logits: torch.Tensor = self.head(torch.relu(self.pointwise(images)).mean(dim=(2, 3)))
        return logits


class Grouped(nn.Module):
    """A convolution in two groups of channels, as in ResNeXt."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.last = nn.Conv2d(8, 16, 3)
        self.head = nn.Linear(16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.relu(self.last(torch.relu(self.grouped(torch.relu(self.first(images))))))
        logits: torch.Tensor = self.head(images.mean(dim=(2, 3)))
        return logits


class Cardinal(nn.Module):
    """A residual block of four paths, as in ResNeXt, and a convolution whose groups write more than they read."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.narrow = nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.paths = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=4), nn.BatchNorm2d(24), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(24, 16, 1), nn.BatchNorm2d(16))
        self.spread = nn.Conv2d(16, 32, 3, groups=2)
        self.head = nn.Linear(32, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.stem(images))
        total = torch.relu(stem + self.wide(self.paths(self.narrow(stem))))
        logits: torch.Tensor = self.head(torch.relu(self.spread(total)).mean(dim=(2, 3)))
        return logits


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual()


def plain_mlp() -> nn.Module:
    """Thirteen numbers, three classes, nothing that depends on the batch."""
    return nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def not_a_module() -> int:
    return 3


def failing() -> nn.Module:
    raise OSError("no disk")


class Bag(nn.Module):
    """Two classes from the mean of the words that the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64, 16)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weight = attention_mask.unsqueeze(-1).float()
        mean = (self.words(input_ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits: torch.Tensor = self.layers(mean)
        return logits


class Linear(nn.Module):
    """One number from ten."""

    input_shape = (10,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layers(rows)
        return answers


class Encoder(nn.Module):
    """A vector of 16 from 64 pixels."""

    input_shape = (64,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.layers(pixels)
        return vectors


class Tagger(nn.Module):
    """Three tags for every token, from the token itself and the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64, 32)
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        words = self.words(input_ids) * attention_mask.unsqueeze(-1).float()
        before = nn.functional.pad(words, (0, 0, 1, 0))[:, :-1]
        logits: torch.Tensor = self.layers(torch.cat([before, words], dim=2))
        return logits


class Codes(nn.Module):
    """Three classes from a price, a weight, a code of the shop and one of the product, all of them floats."""

    def __init__(self) -> None:
        super().__init__()
        self.shop, self.product = nn.Embedding(50, 8), nn.Embedding(200, 12)
        self.head = nn.Sequential(nn.Linear(22, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        shop, product = rows[:, 2:].long().unbind(1)
        logits: torch.Tensor = self.head(torch.cat([rows[:, :2], self.shop(shop), self.product(product)], dim=1))
        return logits

    @staticmethod
    def samples(count: int) -> Samples:
        """Return as many rows."""
        chance = np.random.default_rng(0)
        columns = [*chance.normal(size=(2, count)), chance.integers(0, 50, count), chance.integers(0, 200, count)]
        return Samples({"inputs": np.stack(columns, axis=1).astype(np.float32)}, None, "")


def codes() -> nn.Module:
    torch.manual_seed(0)
    return Codes()
