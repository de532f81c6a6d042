"""The training loop: large batches in parts, an end when nothing gets better, the precision of the device."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import Flattened
from torch import nn

from plimsoll_api.spec import Distill, Precision
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.learner import Learner, arithmetic_of
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.zoo import wine_mlp

SAMPLES = samples_of((1, 4, 4), 60)


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Flattened().eval()


def taught(checkpoints: Checkpoints | None = None, **changes: Any) -> Applied:
    order = {"epochs": 4, "batchSize": 20, "learningRate": "0.003", "losses": [{"logits": {}}, {"labels": {}}]}
    bench = bench_of(model(0), train=SAMPLES)
    bench = Bench(**{**vars(bench), "checkpoints": checkpoints})
    return distill.apply(Distill.model_validate(order | changes), Candidate(model(1)), bench)


def farthest(one: Applied, other: Applied) -> float:
    """Return the largest difference between any two weights."""
    pairs = zip(one.candidate.module.parameters(), other.candidate.module.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("micro_batch_size", [1, 7, 10, 20])
def test_a_batch_in_parts_gives_the_same_weights(micro_batch_size: int) -> None:
    whole, parts = taught(), taught(microBatchSize=micro_batch_size)
    assert farthest(whole, parts) < 2e-5
    assert parts.details["loss"] == pytest.approx(whole.details["loss"], rel=1e-4)
    # And they are far from those of another batch size.
    assert farthest(whole, taught(batchSize=10)) > 1e-3


@pytest.mark.parametrize("kind", ["logits", "features", "relation"])
@pytest.mark.parametrize(("changes", "count"), [({"microBatchSize": 1}, 5), ({"batchSize": 1}, 5), ({}, 1)])
def test_one_sample_alone_is_learned_from_by_the_statistics_that_batch_norm_knows(
    changes: dict[str, Any], count: int, kind: str
) -> None:
    torch.manual_seed(0)
    module = wine_mlp().eval()
    statistics = [module.get_buffer(f"layers.0.running_{name}").clone() for name in ("mean", "var")]
    order = {"epochs": 2, "batchSize": 4, "losses": [{kind: {}}]} | changes
    bench = bench_of(module, train=samples_of((13,), count))
    torch.manual_seed(1)
    applied = distill.apply(Distill.model_validate(order), Candidate(wine_mlp().eval()), bench)
    assert all(map(math.isfinite, applied.details["loss"]))
    trained = applied.candidate.module
    for name, before in zip(("mean", "var"), statistics, strict=True):
        # Of five, the last two are learned from together.
        assert count > 1 or torch.equal(trained.get_buffer(f"layers.0.running_{name}"), before)


def test_early_stopping_needs_samples_to_train_on() -> None:
    bench = bench_of(wine_mlp().eval(), train=samples_of((13,), 1))
    order = Distill.model_validate({"epochs": 1, "earlyStopping": {"patience": 1}})
    with pytest.raises(
        UserError, match=r"^spec\.data\.train: early stopping holds out 1 of 1 samples, which leaves none"
    ):
        distill.apply(order, Candidate(wine_mlp().eval()), bench)


def overfitted(checkpoints: Checkpoints | None = None, **changes: Any) -> Applied:
    """Learn random labels by heart, which helps nothing on those held out."""
    stopping = {"patience": 4, "heldOut": "30%"}
    order = {"epochs": 60, "learningRate": "0.01", "losses": [{"labels": {}}], "earlyStopping": stopping}
    return taught(checkpoints, **(order | changes))


def test_a_training_that_gets_no_better_ends_with_its_best_weights() -> None:
    details = overfitted().details
    curve, best = details["heldOut"]["curve"], details["heldOut"]["bestEpoch"]
    assert details["epochs"] == len(curve) == best + 4 < 60
    assert curve[best - 1] == min(curve)
    # As long as the cosine is the same, a training of so few epochs has these weights.
    shorter = overfitted(earlyStopping={"patience": 1, "heldOut": "30%"})
    assert shorter.details["heldOut"]["curve"] == curve[: len(shorter.details["heldOut"]["curve"])]


def test_the_best_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[dict[str, torch.Tensor]] = []
    train_epoch = Training._train_epoch

    def watched(self: Training) -> float:
        loss = train_epoch(self)
        after.append({name: tensor.cpu().clone() for name, tensor in self._learner.student.state_dict().items()})
        return loss

    monkeypatch.setattr(Training, "_train_epoch", watched)
    applied = overfitted()
    wanted = after[applied.details["heldOut"]["bestEpoch"] - 1]
    given = applied.candidate.module.state_dict()
    assert all(torch.equal(given[name], wanted[name]) for name in wanted)
    assert not all(torch.equal(after[-1][name], wanted[name]) for name in wanted)


def test_an_improvement_below_the_least_that_counts_is_none() -> None:
    details = overfitted(earlyStopping={"patience": 2, "minDelta": 100, "heldOut": "30%"}).details
    assert (details["epochs"], details["heldOut"]["bestEpoch"]) == (3, 1)


def test_an_early_end_is_the_same_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = overfitted()
    epochs = undisturbed.details["epochs"]
    train_epoch, trained = Training._train_epoch, 0

    def dying(self: Training) -> float:
        nonlocal trained
        trained += 1
        if trained == epochs - 1:
            raise KeyboardInterrupt
        return train_epoch(self)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_train_epoch", dying)
        with pytest.raises(KeyboardInterrupt):
            overfitted(Checkpoints(tmp_path, seconds_between=0))
    again = overfitted(Checkpoints(tmp_path, seconds_between=0))
    assert again.candidate.fingerprint() == undisturbed.candidate.fingerprint()
    assert again.details == undisturbed.details


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_a_processor_computes_in_float32() -> None:
    assert arithmetic_of(Precision.AUTO, torch.device("cpu")) is torch.float32
    plain, auto = taught(), taught(precision="Auto")
    assert auto.details["precision"] == "Float32"
    assert auto.candidate.fingerprint() == plain.candidate.fingerprint()


def test_a_gpu_computes_in_bfloat16_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for capable, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda capable=capable, **_: capable)
        assert arithmetic_of(Precision.AUTO, gpu) is wanted
        assert arithmetic_of(Precision.FLOAT32, gpu) is torch.float32


def test_mixed_precision_trains_float32_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "arithmetic_of", lambda *_: torch.bfloat16)
    formats: list[torch.dtype] = []
    forward = Learner.forward

    def watched(self: Learner, *arguments: Any) -> torch.Tensor:
        self.student.head.register_forward_hook(lambda _, __, output: formats.append(output.dtype))  # type: ignore[union-attr]
        values = forward(self, *arguments)
        assert values.dtype is torch.float32
        return values

    monkeypatch.setattr(Learner, "forward", watched)
    applied = taught(epochs=1)
    assert set(formats) == {torch.bfloat16}
    assert applied.details["precision"] == "Mixed"
    assert {parameter.dtype for parameter in applied.candidate.module.parameters()} == {torch.float32}
    assert applied.candidate.fingerprint() != taught(epochs=1, learningRate="0.001").candidate.fingerprint()
