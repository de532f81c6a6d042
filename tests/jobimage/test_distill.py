"""Distillation: the loss by its formula, one order for one seed, zeros that stay."""

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of

from plimsoll_api.spec import Distill, Prune, Task
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques import distill, prune
from plimsoll_job.techniques.distill.losses import softened_divergence
from plimsoll_job.techniques.distill.terms import LogitsTerm
from plimsoll_job.techniques.distill.training import Training, split_samples
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.zoo import wine_mlp


def settings(**changes: object) -> Distill:
    return Distill.model_validate({"epochs": 3, "batchSize": 16, "learningRate": "0.01"} | changes)


def teacher() -> torch.nn.Module:
    torch.manual_seed(0)
    return wine_mlp().eval()


def student() -> Candidate:
    torch.manual_seed(1)
    return Candidate(wine_mlp().eval())


def taught(candidate: Candidate, seed: int = 0, **changes: object) -> Applied:
    return distill.apply(settings(**changes), candidate, bench_of(teacher(), train=samples_of((13,), 50), seed=seed))


def test_the_logits_loss_is_temperature_squared_times_the_divergence() -> None:
    given, wanted, temperature = [2.0, 0.0], [0.0, 1.0], 2.0

    def softmax(values: list[float], divisor: float) -> list[float]:
        powers = [math.exp(value / divisor) for value in values]
        return [power / sum(powers) for power in powers]

    p, q = softmax(wanted, temperature), softmax(given, temperature)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    loss = softened_divergence(torch.tensor([given]), torch.tensor([wanted]), temperature)
    assert loss.item() == pytest.approx(temperature**2 * divergence, rel=1e-5)


def test_a_student_that_answers_as_the_teacher_loses_nothing() -> None:
    logits = torch.randn(4, 3)
    assert softened_divergence(logits, logits, 4).item() == pytest.approx(0, abs=1e-6)


def test_the_total_is_the_weighted_sum_of_the_losses() -> None:
    details = taught(student(), losses=[{"logits": {}}, {"labels": {"weight": "30%"}}]).details
    logits, labels = details["losses"]["logits"], details["losses"]["labels"]
    assert (logits["weight"], labels["weight"]) == (0.7, 0.3)
    for total, one, other in zip(details["loss"], logits["curve"], labels["curve"], strict=True):
        assert total == pytest.approx(0.7 * one + 0.3 * other, abs=2e-6)


@pytest.mark.parametrize("task", [Task.REGRESSION, Task.EMBEDDING])
def test_outputs_that_are_no_classes_are_matched_themselves(task: Task) -> None:
    train = samples_of((13,), 50)
    applied = taught_for(task, train, epochs=80)
    assert applied.details["loss"][-1] < 0.1 * applied.details["loss"][0]
    inputs = torch.from_numpy(train.inputs["inputs"])
    with torch.no_grad():
        given, wanted = applied.candidate.module(inputs), teacher()(inputs)
        before = student().module(inputs)
    if task is Task.REGRESSION:
        assert (given - wanted).square().mean() < 0.1 * (before - wanted).square().mean()
    else:
        cosine = torch.nn.functional.cosine_similarity
        assert cosine(before, wanted).mean() < 0.6
        assert cosine(given, wanted).mean() > 0.95


def test_targets_are_matched_by_squared_error() -> None:
    train = samples_of((13,), 50)
    targets = np.stack([train.inputs["inputs"][:, column] for column in (0, 3, 5)], axis=1)
    applied = taught_for(Task.REGRESSION, replace(train, labels=targets), epochs=60, losses=[{"labels": {}}])
    assert applied.details["loss"][-1] < 0.2 * applied.details["loss"][0]
    with pytest.raises(UserError, match=r"spec.data.train.labels: a sample has 2 numbers, the model answers with 3"):
        taught_for(Task.REGRESSION, replace(train, labels=targets[:, :2]), losses=[{"labels": {}}])


def taught_for(task: Task, train: Samples, **changes: object) -> Applied:
    return distill.apply(settings(**changes), student(), replace(bench_of(teacher(), train=train), task=task))


def test_labels_alone_ask_no_teacher() -> None:
    details = taught(student(), epochs=15, losses=[{"labels": {}}]).details
    assert details["teacher"]["asked"] == "Never"
    assert details["loss"][-1] < 0.7 * details["loss"][0]


def test_training_brings_the_student_nearer() -> None:
    curve = taught(student(), epochs=20).details["loss"]
    assert curve[-1] < 0.2 * curve[0]


def test_one_seed_gives_one_model() -> None:
    one, same, other = (taught(student(), seed=seed).candidate.fingerprint() for seed in (0, 0, 1))
    assert one == same != other


def test_pruned_zeros_survive() -> None:
    order = Prune.model_validate({"criterion": "Magnitude", "granularity": "Unstructured", "amount": "60%"})
    pruned = prune.apply(order, student(), bench_of(teacher())).candidate
    before, was_zero = pruned.fingerprint(), {name: pruned.module.get_parameter(name) == 0 for name in pruned.sparse}
    trained = taught(pruned, epochs=5).candidate
    assert trained.fingerprint() != before
    for name, zeros in was_zero.items():
        assert zeros.any()
        assert (trained.module.get_parameter(name)[zeros] == 0).all()


def test_a_single_last_sample_joins_the_batch_before() -> None:
    assert [len(batch) for batch in split_samples(torch.arange(33), 16)] == [16, 17]
    assert [len(batch) for batch in split_samples(torch.arange(34), 16)] == [16, 16, 2]
    assert [len(batch) for batch in split_samples(torch.arange(1), 16)] == [1]


def test_long_curves_keep_first_and_last() -> None:
    curve = taught(student(), epochs=120).details["loss"]
    assert len(curve) == 50


def test_a_diverging_training_blames_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    # No rate that the field takes makes so small a model diverge.
    monkeypatch.setattr(LogitsTerm, "forward", lambda self, student, *_: student.output.sum() * float("nan"))
    with pytest.raises(UserError, match=r"learningRate: training diverged"):
        distill.apply(settings(epochs=5), student(), bench_of(teacher(), train=samples_of((13,), 50)))


def test_data_that_the_teacher_does_not_answer_is_named_and_not_the_learning_rate() -> None:
    wild = samples_of((13,), 50)
    wild.inputs["inputs"][:] = 3e38
    with pytest.raises(UserError, match=r"spec.data.train: the teacher answers 50 of a batch's 50 samples with NaN"):
        distill.apply(settings(epochs=5), student(), bench_of(teacher(), train=wild))


def test_a_device_without_a_fixed_order_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Training.run

    def warning_run(*arguments: Any) -> Any:
        warnings.warn("x_cuda does not have a deterministic implementation", stacklevel=1)
        return take(*arguments)

    assert taught(student()).notes == ()
    monkeypatch.setattr(Training, "run", warning_run)
    assert "another run of the same plan may give another artifact" in taught(student()).notes[0]


def test_the_candidate_is_trained_in_place_and_the_model_as_given_is_not() -> None:
    bench = bench_of(teacher(), train=samples_of((13,), 50))
    given = Candidate(bench.source.take())
    fingerprint = given.fingerprint()
    first = distill.apply(settings(), given, bench).candidate
    assert first.module is given.module
    assert first.fingerprint() != fingerprint == Candidate(bench.source.module).fingerprint()


def test_training_data_is_needed() -> None:
    with pytest.raises(UserError, match=r"spec.data.train: "):
        distill.apply(settings(), student(), bench_of(teacher()))


def test_labels_beyond_the_classes_are_refused() -> None:
    train = samples_of((13,), 50, classes=9)
    with pytest.raises(UserError, match=r"spec.data.train.labels: label 8 is beyond the model's 3 classes"):
        distill.apply(settings(losses=[{"labels": {}}]), student(), bench_of(teacher(), train=train))
