"""Small nets that have learned the digits, for claims about what compression costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from plimsoll_job.examples.digits import load_images
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import SINGLE_INPUT

TRAINING = 1_200
EPOCHS = 6


class SmallDigits(nn.Module):
    """Four convolutions of different redundancy, and two linear layers."""

    input_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
            nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(images)
        return logits


def digits(start: int, end: int | None = None) -> Samples:
    """Return digits of scikit-learn's data, with their labels."""
    images, labels = load_images()
    return Samples({SINGLE_INPUT: images[start:end]}, labels[start:end], digest="sha256:" + "0" * 64)


@cache
def _weights(build: Callable[[], nn.Module], seed: int, epochs: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    module, samples = build().train(), digits(0, TRAINING)
    assert samples.labels is not None
    images, labels = torch.from_numpy(samples.inputs[SINGLE_INPUT]), torch.from_numpy(samples.labels)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(48):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.state_dict()


def learned(build: Callable[[], nn.Module], seed: int = 0, epochs: int = EPOCHS) -> nn.Module:
    """Return a net for the digits as trained; always the same on one machine."""
    module = build()
    module.load_state_dict(_weights(build, seed, epochs))
    return module.eval()


def small_digits() -> nn.Module:
    """Return the net without normalisation as trained."""
    return learned(SmallDigits)


def accuracy(module: nn.Module) -> float:
    """Return the accuracy on digits that were not trained on."""
    samples = digits(TRAINING)
    assert samples.labels is not None
    with torch.no_grad():
        answers = module(torch.from_numpy(samples.inputs[SINGLE_INPUT])).argmax(dim=1)
    return float((answers == torch.from_numpy(samples.labels)).float().mean())
