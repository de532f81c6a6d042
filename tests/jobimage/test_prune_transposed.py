"""Channels go through views, and through what transposed convolutions write and read."""

from __future__ import annotations

import pytest
import torch
from tests.jobimage.bench import batches_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.planted import pruned
from torch import nn

from plimsoll_job.figures import count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.shape import Cut


class Generator(nn.Module):
    """Numbers that become an image: a linear layer, seen as channels of places, and transposed convolutions."""

    input_shape = (16,)

    def __init__(self) -> None:
        super().__init__()
        self.start, self.first = nn.Linear(16, 96), nn.ConvTranspose2d(24, 16, 4, 2, 1)
        self.second, self.last = nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        images = self.start(numbers).relu().view(-1, self.first.in_channels, 2, 2)
        answers: torch.Tensor = self.last(self.second(self.first(images).relu()).relu())
        return answers.flatten(1)


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
def test_channels_go_through_a_view_to_a_transposed_convolution(criterion: str) -> None:
    torch.manual_seed(0)
    module = Generator().eval()
    start = next(group for group in find_groups(module, single((16,))) if group.root == "start")
    assert start.units[0] == (0, 1, 2, 3)
    applied = pruned(module, samples_of((16,), 64), "30%", criterion)
    left = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(0.3, abs=0.03)
    assert left(torch.randn(3, 16)).shape == (3, 64)
    export_bytes(left, single((16,)))


def test_what_a_transposed_convolution_reads_twice_is_refitted() -> None:
    torch.manual_seed(0)
    module = Generator().eval()
    with torch.no_grad():
        for tensor, axis in ((module.first.weight, 1), (module.first.bias, 0)):
            assert tensor is not None
            tensor.movedim(axis, 0)[3] = tensor.movedim(axis, 0)[5]
    inputs = torch.from_numpy(samples_of((16,), 256).inputs["inputs"])
    groups, one = find_groups(module, single((16,))), Cut("first", (3,))
    scores = redundancy_scores(module, groups, batches_of(inputs))["first"]
    assert scores.argmin() in (3, 5)
    less = cut(module, single((16,)), [one])
    compensate(module, less, groups, [one], batches_of(inputs))
    numbers = torch.randn(8, 16)
    with torch.no_grad():
        assert torch.allclose(less(numbers), module(numbers), atol=1e-3)
