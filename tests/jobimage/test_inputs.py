"""Models of several inputs, of words and their mask, go the same way as those of one."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.jobimage.exported import export_bytes
from torch import nn

from plimsoll_api.spec import Task
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import signature
from plimsoll_job.figures import count
from plimsoll_job.load import data
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Input, single
from plimsoll_job.load.roles import check_answers
from plimsoll_job.load.signature import signature_of
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


class Two(nn.Linear):
    """Takes two arrays of numbers."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(left + right)


class Named(nn.Linear):
    """Answers with several tensors, by name."""

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"logits": super().forward(input), "hidden": input}


class Several(nn.Linear):
    """Answers with several tensors, in order."""

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(input), input


class Flat(nn.Linear):
    """Answers one number a sample, without the dimension of outputs."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)[:, 0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            Two,
            r"forward\(left.*right.*\) .* is called with 1 by position \(inputs\): missing .*'right'; have the factory",
        ),
        (Named, r"answers with dict of logits, hidden; have the factory return a module whose forward answers with"),
        (Several, r"answers with tuple of 2; have the factory"),
        (Flat, r"\[batch, classes\], this one answers with \[batch\]"),
    ],
)
def test_a_module_of_other_inputs_or_answers_is_refused_with_what_to_do(kind: type[nn.Linear], words: str) -> None:
    numbers = Samples({"inputs": np.ones((4, 3), np.float32)}, None, "")
    with pytest.raises(UserError, match=f"spec.model.architecture: .*{words}"):
        signature_of(kind(3, 2).eval(), {"spec.data.calibration.inputs": numbers}, Task.TABULAR_CLASSIFICATION)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Two, "have the factory"), (Named, "answers with dict of logits, hidden"), (Several, "tuple of 2")],
)
def test_so_is_a_student_or_teacher(kind: type[nn.Linear], words: str) -> None:
    like = nn.Linear(3, 2).eval()
    with pytest.raises(UserError, match=rf"^spec\.steps\[0\]\.distill\.student: .*{words}"):
        check_answers(kind(3, 2).eval(), like, single((3,)), "spec.steps[0].distill.student")
