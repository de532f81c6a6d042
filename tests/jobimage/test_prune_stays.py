"""What cannot go stays, and is named with the reason."""

from __future__ import annotations

import re

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.planted import pruned
from tests.jobimage.stacked import net
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.shape import Candidate


class AlongChannels(nn.Module):
    """Neighbouring channels weigh each other, as in ECA."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.mix(images.mean((2, 3))[:, None]).sigmoid()
        return images * weights[:, 0, :, None, None]


class InOrder(nn.Module):
    """Each channel and all before it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.cumsum(1)


class Unknown(nn.Module):
    """An operation that leads from channels to no channels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = torch.fft.fft(images, dim=1).real
        return answers


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (nn.LocalResponseNorm(3), r"avg_pool3d in 1 \(LocalResponseNorm\) runs along them"),
        (AlongChannels(), r"a convolution in 1.mix \(Conv1d\) runs along them"),
        (InOrder(), r"their order counts at cumsum in 1 \(InOrder\)"),
        (Unknown(), r"_fft_r2c in 1 \(Unknown\)"),
    ],
    ids=["neighbours", "along", "order", "unknown"],
)
def test_channels_that_cannot_be_followed_stay_and_are_named(between: nn.Module, why: str) -> None:
    module = net(lambda _: [between], 16)
    applied = pruned(module, samples_of((3, 8, 8), 16), "10%", "Magnitude")
    assert applied.candidate.module.get_parameter("0.weight").shape[0] == 16
    (left,) = (one for one in applied.left if one.layer == "0")
    assert left.kind == "Conv2d"
    assert re.search(why, left.reason)


def test_a_model_of_which_nothing_can_go_says_why() -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    module.input_shape = (4,)  # type: ignore[assignment]
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "10%"})
    with pytest.raises(UserError, match=r"no layer whose channels could go.*they are the model's answers"):
        prune.apply(settings, Candidate(module.eval()), bench_of(module))
