"""Examples are the job's own samples: what is traced, counted and checked by them is what the model is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.jobimage.modules import Codes, codes
from torch import nn

from plimsoll_api.sources import Task
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import FEW, MOST, example_of, with_samples
from plimsoll_job.load.inputs import BATCH, Input, single
from plimsoll_job.load.signature import signature_of
from plimsoll_job.techniques.factorize.layers import find_targets
from plimsoll_job.techniques.prune.coupling import find_groups

TEXT = (Input("input_ids", (6,), "int64", 90), Input("attention_mask", (6,), "int64", 2))


def numbers(count: int, *shape: int) -> Samples:
    return Samples({"inputs": np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)}, None, "")


def rows_of(signature: tuple[Input, ...]) -> list[list[float]]:
    (one,) = signature
    assert one.samples is not None
    return one.samples.reshape(len(one.samples), -1).tolist()


def test_examples_are_samples_and_repeat_where_there_are_fewer() -> None:
    data = numbers(3, 4)
    signature = with_samples(single((4,)), data)
    assert sorted(rows_of(signature)) == sorted(data.inputs["inputs"].tolist())
    (example,) = example_of(signature, 7)
    assert example.tolist() == [rows_of(signature)[at % 3] for at in range(7)]
    (two,) = example_of(signature)
    assert torch.equal(two, example[:BATCH])


def test_inputs_of_one_example_are_of_one_sample() -> None:
    ids = np.arange(60).reshape(10, 6)
    mask = (np.arange(6) < np.arange(10)[:, None] % 5 + 2).astype(np.int64)
    signature = with_samples(TEXT, Samples({"input_ids": ids, "attention_mask": mask}, None, ""))
    drawn, masks = example_of(signature, 10)
    assert all(torch.equal(masks[at], torch.from_numpy(mask[int(drawn[at, 0]) // 6])) for at in range(10))


def test_the_samples_that_reach_furthest_are_among_them() -> None:
    data = numbers(5_000, 4)
    rows = data.inputs["inputs"]
    rows[4_321, 2], rows[17, 0], rows[99] = 80, -90, 7
    signature = with_samples(single((4,)), data)
    found = rows_of(signature)
    assert len(found) == MOST
    assert all(rows[at].tolist() in found for at in (4_321, 17, 99))
    # A trace sees what is usual.
    assert np.abs(found[:BATCH]).max() < 6
    assert found == rows_of(with_samples(single((4,)), data))


def test_the_shortest_and_the_longest_text_are_among_them() -> None:
    mask = np.ones((2_000, 400), np.int64)
    mask[:, 200:], mask[5, 3:], mask[1_234] = 0, 0, 1
    data = Samples({"input_ids": mask * 7, "attention_mask": mask}, None, "")
    long = tuple(Input(one.name, (400,), one.dtype, one.values) for one in TEXT)
    _, masks = with_samples(long, data)
    assert masks.samples is not None
    assert {3, 200, 400} == set(masks.samples.sum(axis=1).tolist())
    # One text counts as much memory as some hundred rows of a table.
    assert len(masks.samples) < FEW


def test_codes_of_categories_are_taken_from_the_data() -> None:
    module, data = codes().eval(), Codes.samples(64)
    signature = signature_of(module, {"spec.data.calibration.inputs": data}, Task.TABULAR_CLASSIFICATION)
    assert count(module, signature).macs == 22 * 64 + 64 * 64 + 64 * 3
    assert find_targets(module, signature)[0]
    assert find_groups(module, signature)


class Told(nn.Module):
    """Tells its shape, and takes the codes from 100 to 102 only."""

    input_shape = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(3, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.codes(rows[:, 0].long() - 100)
        return found


def test_a_model_that_refuses_random_numbers_is_not_said_to_refuse_the_data() -> None:
    with pytest.raises(UserError, match=r"refuses random numbers of the shape \[1\], which .*\(name calibration or"):
        signature_of(Told(), {"spec.data.calibration.inputs": None}, Task.TABULAR_CLASSIFICATION)
    data = Samples({"inputs": np.array([[100], [102], [101]], np.float32)}, None, "")
    signature = signature_of(Told(), {"spec.data.train.inputs": data}, Task.TABULAR_CLASSIFICATION)
    assert set(example_of(signature, 3)[0].flatten().tolist()) == {100, 101, 102}
