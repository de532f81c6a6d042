"""Layers without numbers, which a model may hold beside others: passed over by every step."""

import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.test_ties import WIDTH, step
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.techniques.prune.structured import prune_structured


class Emptied(nn.Module):
    """A layer without outputs, as pruning of other tools leaves them, beside others."""

    input_shape = (WIDTH,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.none, self.head = nn.Linear(WIDTH, 64), nn.Linear(64, 0), nn.Linear(64, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs).relu()
        answer: torch.Tensor = self.head(hidden) + self.none(hidden).sum(1, keepdim=True)
        return answer


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("technique", ["zeros", "factors", "distill", "redundancy"])
def test_a_layer_without_numbers_is_passed_over(technique: str) -> None:
    module = Emptied().eval()
    if technique == "redundancy":
        settings = Prune.model_validate({"criterion": "Redundancy", "amount": "30%"})
        data = samples_of((WIDTH,), 64)
        applied = prune_structured(settings, candidate_of(module), bench_of(module, calibration=data))
    else:
        applied = step(technique, module)
    assert applied.candidate.module(torch.zeros(2, WIDTH)).shape == (2, 3)
