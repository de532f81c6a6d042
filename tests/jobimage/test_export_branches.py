"""Graphs with branches and loops within: what only those read is kept and called as they call it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.inputs import single


class Bag(nn.Module):
    """torch's exporter writes a loop over the bags."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(10, 16), nn.Linear(16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.bag(inputs.long().abs() % 10).relu())
        return answer


@torch.jit.script
def branching(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    answer = inputs @ weight
    if inputs.sum() > 0:
        answer = answer * 2
    for number in range(2):
        answer = answer + weight.sum() * number
    return answer


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(6, 16)), nn.Linear(16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(branching(inputs, self.weight))
        return answer


@pytest.mark.parametrize("kind", [Bag, Branching])
def test_what_branches_and_loops_read_is_there(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    # It compares the answers.
    export_onnx(kind().eval(), single((6,)), tmp_path / "model.onnx")
