"""Regression and embeddings: figures equal scikit-learn's, and models of both go the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from tests.jobimage.modules import Encoder, Linear
from torch import nn

from plimsoll_api.gate import judge
from plimsoll_api.gates import Gate
from plimsoll_api.means import weighted
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Report
from plimsoll_api.sources import Task
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.embedding import fidelity, neighbour_overlap, rank_correlation, similarities
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.evaluate.moments import moments_of
from plimsoll_job.evaluate.regression import compare_errors, error_figures
from plimsoll_job.evaluate.yardsticks import YARDSTICKS
from plimsoll_job.load.labels import READ_LABELS, targets
from plimsoll_job.load.signature import OUTPUTS, check_output
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter

SILENT = Reporter(emit=lambda _: None)


def test_every_task_has_its_yardstick_its_labels_and_its_answer() -> None:
    assert set(YARDSTICKS) == set(READ_LABELS) == set(OUTPUTS) == set(Task)


# --- regression


@pytest.mark.parametrize("outputs", [1, 3])
def test_errors_are_those_of_scikit_learn(outputs: int) -> None:
    chance = np.random.default_rng(outputs)
    labels = chance.standard_normal((50, outputs)) * [1, 10, 100][:outputs]
    answers = labels + chance.standard_normal((50, outputs))
    found = error_figures(answers, labels)
    assert found.rmse == pytest.approx(mean_squared_error(labels, answers) ** 0.5, rel=1e-9)
    assert found.mae == pytest.approx(mean_absolute_error(labels, answers), rel=1e-9)
    assert found.r2 == pytest.approx(r2_score(labels, answers), rel=1e-9)


def test_labels_that_are_all_the_same_have_no_r2() -> None:
    labels = np.ones((40, 1))
    assert error_figures(labels + 1, labels).r2 is None
    assert compare_errors(labels + 1, labels + 2, labels).scaled is None


def test_moments_give_those_of_every_weighted_sum() -> None:
    numbers = np.random.default_rng(0).exponential(size=(3, 200))
    for weights in ((1, 0, 0), (-1.05, 1, 0), (-1, 1, -0.02)):
        total = np.tensordot(weights, numbers, axes=1)
        mean, variance, third = weighted(moments_of(*numbers), weights)
        assert [mean, variance] == pytest.approx([total.mean(), total.var(ddof=1)])
        assert third == pytest.approx(((total - total.mean()) ** 3).mean())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["1", "2"]), "f.labels: expected numbers"),
        (np.array([1.0, np.nan]), "f.labels: 1 labels are NaN or infinite, the first is 1"),
        (np.zeros((2, 2, 2)), "f.labels: expected one number or one list"),
    ],
)
def test_wrong_numbers_name_their_field(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        targets(labels, (), "f")


# --- embeddings


def test_fidelity_by_hand() -> None:
    baseline = np.array([[1.0, 0], [0, 2], [3, 4], [0, 0]])
    found = similarities(baseline, np.array([[2.0, 0], [1, 1], [-3, -4], [1, 1]]))
    assert found.tolist() == pytest.approx([1, 0.5**0.5, -1, 0])


def test_turning_all_vectors_together_keeps_neighbours_but_no_cosine() -> None:
    vectors = np.random.default_rng(0).standard_normal((60, 8))
    turned = vectors @ np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    found = fidelity(vectors, turned)
    assert found.cosine_similarity is not None
    assert found.cosine_similarity < 0.5
    assert found.neighbour_overlap == 1
    assert found.rank_correlation == pytest.approx(1)


def test_ranks_and_neighbours_are_those_of_scipy_and_of_a_plain_loop() -> None:
    chance = np.random.default_rng(0)
    first = chance.standard_normal((40, 5))
    second = np.round(first + chance.standard_normal((40, 5)), 1)
    pairs = np.triu_indices(40, 1)
    one, other = (_cosines(x) for x in (first, second))
    assert rank_correlation(first, second) == pytest.approx(spearmanr(one[pairs], other[pairs]).statistic)
    kept = []
    for row in range(40):
        near = [sorted((n for n in range(40) if n != row), key=lambda n, m=m: -m[row, n])[:10] for m in (one, other)]  # type: ignore[misc]
        kept.append(len(set(near[0]) & set(near[1])) / 10)
    assert neighbour_overlap(first, second) == pytest.approx(np.mean(kept))


def _cosines(vectors: Any) -> Any:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_one_vector_has_no_neighbour() -> None:
    found = fidelity(np.ones((1, 4)), np.ones((1, 4)))
    assert (found.neighbour_overlap, found.rank_correlation) == (None, None)


# --- the whole way


def measured(claims: Path, task: str, factory: str, steps: list[dict[str, Any]], **data: Any) -> Report:
    """Compress and evaluate a model of the claim models/m on data/train.npz and data/test.npz."""
    source = {"uri": "pvc://data/train.npz", **data}
    plan = Plan.model_validate(
        {
            "image": "",
            "model": {"uri": "pvc://models/m", "architecture": {"factory": factory}},
            "task": task,
            "train": source,
            "calibration": source,
            "steps": steps,
            "seed": 0,
            "output": {"uri": "pvc://out/m"},
        }
    )
    summary = flow.compress(plan, Store(claims=claims), SILENT)
    torch.set_num_threads(1)
    request = EvaluationRequest.model_validate(
        {
            "task": task,
            "data": {"uri": "pvc://data/test.npz", "slices": [{"column": "group"}], **data},
            "settings": {"latency": {"batchSizes": [1], "rounds": 8, "processes": 2}},
            "seed": 0,
            "baseline": summary.baseline,
            "candidate": summary.candidate,
            "by_step": True,
            "output": {"uri": "pvc://out/m"},
        }
    )
    return measure(request, Store(claims=claims), SILENT)


def verdicts(report: Report, *gates: dict[str, Any]) -> list[str]:
    return [check.verdict.value for check in judge(report, [Gate.model_validate(gate) for gate in gates]).checks]


def prepare(claims: Path, module: nn.Module, **sets: dict[str, Any]) -> None:
    for name in ("models/m", "data", "out"):
        (claims / name).mkdir(parents=True)
    save_file(module.state_dict(), claims / "models" / "m" / "model.safetensors")
    for name, arrays in sets.items():
        np.savez(claims / "data" / f"{name}.npz", **arrays)


def test_a_regression_goes_the_whole_way(tmp_path: Path) -> None:
    """Progress of diabetes after a year, from ten numbers; int8 changes it little, half of the channels more."""
    data = load_diabetes()
    inputs = (data.data / data.data.std(axis=0)).astype(np.float32)
    labels = data.target.astype(np.float32)
    group = inputs[:, 1] > 0
    torch.manual_seed(0)
    module = Linear()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(150):
        answers = module(torch.from_numpy(inputs[:221]))[:, 0]
        loss = nn.functional.mse_loss(answers, torch.from_numpy(labels[:221]) / 100)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    parts = {"train": slice(0, 221), "test": slice(221, None)}
    prepare(tmp_path, module, **{
        name: {"inputs": inputs[part], "labels": labels[part] / 100, "group": group[part]}
        for name, part in parts.items()
    })  # fmt: skip
    report = measured(tmp_path, "Regression", "tests.jobimage.modules:Linear", [{"quantize": {"scheme": "Int8Static"}}])
    baseline, candidate = report.baseline, report.candidate
    assert baseline is not None
    assert candidate is not None
    assert baseline.accuracy is None
    assert baseline.r2 is not None
    assert baseline.r2 > 0.2
    assert baseline.rmse is not None
    assert candidate.rmse == pytest.approx(baseline.rmse, rel=0.1)
    assert [one.samples for one in report.slices] == [int(one.sum()) for one in (~group[221:], group[221:])]
    assert report.steps[-1].rmse == candidate.rmse
    assert verdicts(
        report,
        {"metric": "rmse", "maxRegression": "20%"},
        {"metric": "mae", "maxRegression": "20%", "confidence": "99%"},
        {"metric": "r2", "maxRegression": "20%"},
        {"metric": "rmse", "maxError": "2"},
        {"metric": "mae", "maxError": "0.1"},
        {"metric": "accuracy", "min": "0%"},
    ) == ["Pass", "Pass", "Pass", "Pass", "Fail", "Inconclusive"]


def test_an_embedding_goes_the_whole_way(tmp_path: Path) -> None:
    images = (load_digits().data / 16).astype(np.float32)
    torch.manual_seed(0)
    group = np.arange(len(images)) % 2
    prepare(tmp_path, Encoder(), **{
        "train": {"inputs": images[:898]}, "test": {"inputs": images[898:], "group": group[898:]},
    })  # fmt: skip
    steps = [{"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%"}}]
    report = measured(tmp_path, "Embedding", "tests.jobimage.modules:Encoder", steps)
    assert report.data.samples == 899
    assert report.flips is None
    assert report.baseline is not None
    assert report.baseline.cosine_similarity == pytest.approx(1)
    candidate = report.candidate
    assert candidate is not None
    assert candidate.cosine_similarity_p5 is not None
    assert candidate.cosine_similarity is not None
    assert 0.9 < candidate.cosine_similarity_p5 < candidate.cosine_similarity < 1
    assert [one.samples for one in report.slices] == [450, 449]
    assert verdicts(
        report,
        {"metric": "cosineSimilarity", "min": "90%"},
        {"metric": "cosineSimilarity", "min": "99.99%"},
        {"metric": "neighbourOverlap", "min": "20%"},
        {"metric": "rankCorrelation", "min": "50%"},
    ) == ["Pass", "Fail", "Pass", "Pass"]


def test_answers_of_another_shape_than_the_tasks_are_refused() -> None:
    check_output(torch.zeros(2, 5), Task.EMBEDDING)
    for answer in (torch.zeros(2), torch.zeros(2, 3, 4), (torch.zeros(2, 5),)):
        with pytest.raises(UserError, match=r"Regression answers with .* \[batch, outputs\], this one"):
            check_output(answer, Task.REGRESSION)


def test_another_number_of_labels_than_outputs_is_refused() -> None:
    with pytest.raises(UserError, match=r"f.labels: 2 numbers a sample, the model answers with 1"):
        YARDSTICKS[Task.REGRESSION].check(np.zeros((5, 2)), 1, "f")
