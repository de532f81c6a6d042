"""Models of several inputs, of words and their mask, go the same way as those of one."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.jobimage.exported import export_bytes
from torch import nn

from plimsoll_job.export.graph import signature
from plimsoll_job.figures import count
from plimsoll_job.load import data
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Input
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import observe_inputs

WORDS = 11
TEXT = (Input("input_ids", (6,), "int64", WORDS), Input("attention_mask", (6,), "int64", 2))


class Bag(nn.Module):
    """The mean of the words that the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weight = attention_mask.unsqueeze(-1).float()
        mean = (self.words(input_ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits: torch.Tensor = self.head(mean)
        return logits


def samples(count: int) -> Samples:
    chance = np.random.default_rng(0)
    arrays = {"input_ids": chance.integers(0, WORDS, (count, 6)), "attention_mask": chance.integers(0, 2, (count, 6))}
    return Samples(arrays, None, "")


def test_examples_are_numbers_that_the_model_takes() -> None:
    words, mask = example_of(TEXT, 64)
    assert words.dtype == mask.dtype == torch.int64
    assert (int(words.min()), int(words.max())) == (0, WORDS - 1)
    assert set(mask.flatten().tolist()) == {0, 1}
    assert all(torch.equal(one, other) for one, other in zip(example_of(TEXT), example_of(TEXT), strict=True))


def test_an_export_takes_all_inputs_by_name() -> None:
    module, given = Bag().eval(), samples(7)
    graph = export_bytes(module, TEXT)
    taken, _ = signature(onnx.load_from_string(graph))
    assert [(one.name, one.dtype, one.shape) for one in taken] == [
        ("input_ids", "int64", [None, 6]),
        ("attention_mask", "int64", [None, 6]),
    ]
    (answers,) = ort.InferenceSession(graph).run(None, given.rows(slice(None)))
    (batch,) = Batches.of(given)
    assert np.allclose(answers, module(*batch).detach().numpy(), atol=1e-6)


def test_layers_are_observed_over_all_batches_of_all_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_BATCH", 4)
    seen: list[int] = []
    observe_inputs(Bag(), ["head"], lambda _, inputs, __: seen.append(len(inputs)), Batches.of(samples(10)))
    assert seen == [4, 4, 2]
    assert count(Bag(), TEXT).macs == 15
