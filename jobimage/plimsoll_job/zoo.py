"""Architectures of the image, named by `spec.model.architecture.factory`, such as plimsoll_job.zoo:digits_cnn.

A factory takes no argument and returns a module. `input_shape`, when the module has it, is the shape of one sample.
"""

from __future__ import annotations

import torch
from torch import nn


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


class DigitsCNN(nn.Module):
    """Ten handwritten digits from images of 1x8x8: logits of shape [batch, 10]; 326,346 parameters at width 64."""

    input_shape = (1, 8, 8)

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, width),
            *_convolution(width, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        logits: torch.Tensor = self.classifier(self.features(images))
        return logits


class TabularMLP(nn.Module):
    """Three classes from thirteen numbers: logits of shape [batch, 3]."""

    input_shape = (13,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(13), nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of rows."""
        logits: torch.Tensor = self.layers(rows)
        return logits


def digits_cnn() -> nn.Module:
    """Return the convolutional network of the digits example."""
    return DigitsCNN()


def small_digits_cnn() -> nn.Module:
    """Return a quarter as wide a network for the same task: 20,922 parameters."""
    return DigitsCNN(width=16)


def wine_mlp() -> nn.Module:
    """Return a small perceptron for thirteen numeric columns and three classes, such as scikit-learn's wines."""
    return TabularMLP()
