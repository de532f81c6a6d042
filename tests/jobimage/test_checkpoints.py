"""Where a training stands is kept whole or not at all, and one that goes on ends as one that was never stopped."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import PlainCNN
from torch import nn

from plimsoll_api.spec import Distill
from plimsoll_job.checkpoints import Checkpoint, Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.terms import LogitsTerm
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

EPOCHS = 6


class Killed(BaseException):
    """The pod dies."""


class Dropping(nn.Module):
    """Batch norm has state beside its weights, dropout draws by chance."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop = PlainCNN(), nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(self.drop(images))
        return logits


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Dropping().eval()


def taught(checkpoints: Checkpoints | None, dies_after: int | None = None, **more: Any) -> Applied:
    def on_progress(progress: Any) -> None:
        if dies_after is not None and progress.message.startswith(f"epoch {dies_after}/"):
            raise Killed

    bench = bench_of(model(0), train=samples_of((3, 8, 8), 50))
    bench.reporter.emit = on_progress
    bench = Bench(**{**vars(bench), "checkpoints": checkpoints})
    # Not in the order of the alphabet, which is that of what is kept.
    losses = [{"logits": {"weight": "0.9"}}, {"labels": {"weight": "0.1"}}]
    settings = Distill.model_validate(
        {"epochs": EPOCHS, "batchSize": 16, "learningRate": "0.01", "losses": losses, **more}
    )
    return distill.apply(settings, Candidate(model(1)), bench)


def every_epoch(directory: Path) -> Checkpoints:
    return Checkpoints(directory, seconds_between=0)


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plimsoll_job.progress.MIN_SECONDS_BETWEEN_LINES", 0)


@pytest.mark.parametrize("dies_after", [1, 3, EPOCHS - 1])
def test_a_stopped_training_ends_as_one_that_was_never_stopped(tmp_path: Path, dies_after: int) -> None:
    undisturbed = taught(None)
    with pytest.raises(Killed):
        taught(every_epoch(tmp_path), dies_after)
    assert [path.name for path in tmp_path.iterdir()] == [f"epoch-{dies_after:06d}"]
    again = taught(every_epoch(tmp_path))
    assert again.candidate.fingerprint() == undisturbed.candidate.fingerprint()
    assert again.details == undisturbed.details


def test_a_training_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    for dies_after in range(1, EPOCHS):
        with pytest.raises(Killed):
            taught(every_epoch(tmp_path), dies_after)
    assert taught(every_epoch(tmp_path)).candidate.fingerprint() == taught(None).candidate.fingerprint()


@pytest.mark.parametrize("file", ["tensors.safetensors", "facts.json", "digests.json"])
@pytest.mark.parametrize("torn", [True, False])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, file: str, torn: bool) -> None:
    with pytest.raises(Killed):
        taught(every_epoch(tmp_path), 3)
    damaged = tmp_path / "epoch-000003" / file
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-3] if torn else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert Checkpoints(tmp_path).newest() is None
    assert taught(every_epoch(tmp_path)).candidate.fingerprint() == taught(None).candidate.fingerprint()


def test_short_epochs_are_not_saved_each(tmp_path: Path) -> None:
    now = [0.0]
    checkpoints = Checkpoints(tmp_path, clock=lambda: now[0])
    assert not checkpoints.due()
    now[0] = 1.0
    assert checkpoints.due()
    checkpoints.save(Checkpoint(1, {"a": torch.ones(2)}, {}))
    now[0] = 1.9
    assert not checkpoints.due()


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    one, two = Checkpoint(1, {"a": torch.ones(2)}, {"step": 7}), Checkpoint(2, {"a": torch.zeros(2)}, {})
    Checkpoints(tmp_path / "other").save(one)
    Checkpoints(tmp_path / "this").save(two)
    (tmp_path / "other" / "epoch-000001").rename(tmp_path / "this" / "epoch-000001")
    newest = Checkpoints(tmp_path / "this").newest()
    assert newest is not None
    assert newest.epoch == 2
    (tmp_path / "this" / "epoch-000002" / "facts.json").unlink()
    newest = Checkpoints(tmp_path / "this").newest()
    assert newest is not None
    assert (newest.epoch, newest.facts, newest.tensors["a"].tolist()) == (1, {"step": 7}, [1.0, 1.0])


def test_weights_that_are_shared_are_kept(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Checkpoint(1, {"a": shared, "b": shared, "t": torch.arange(6.0).view(2, 3).T}, {}))
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.tensors["b"].tolist() == [0, 1, 2]
    assert newest.tensors["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("dies_at", [2, 5, 7])
def test_a_training_stopped_within_an_epoch_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    undisturbed = taught(None)
    step, steps = Training._step, [0]

    def mortal(self: Training, batch: torch.Tensor) -> torch.Tensor:
        if steps[0] == dies_at:
            raise Killed
        steps[0] += 1
        return step(self, batch)

    # Of four batches each epoch.
    every_batch = partial(Checkpoints, tmp_path, seconds_between=0, seconds_within=0)
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_step", mortal)
        with pytest.raises(Killed):
            taught(every_batch())
    epochs, batches = divmod(dies_at, 4)
    assert [path.name for path in tmp_path.iterdir()] == [f"epoch-{epochs:06d}-{batches:09d}"]
    seen: list[int] = []

    def counted(self: Any, batch: Any) -> Any:
        seen.append(len(batch))
        return step(self, batch)

    monkeypatch.setattr(Training, "_step", counted)
    again = taught(every_batch())
    assert len(seen) == 4 * EPOCHS - dies_at
    assert again.candidate.fingerprint() == undisturbed.candidate.fingerprint()
    assert again.details == undisturbed.details


@pytest.mark.parametrize(
    ("wrong_while", "told"),
    [(True, "the loss is nan within epoch 1"), (False, "nan on the samples held out, after epoch")],
)
def test_a_loss_that_is_no_number_blames_the_learning_rate_where_it_would_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_while: bool, told: str
) -> None:
    """JSON has no NaN, so that the save before the check ended as a fault of Plimsoll."""
    take = LogitsTerm.forward

    def wrong(self: LogitsTerm, *given: Any) -> torch.Tensor:
        return take(self, *given) * (float("nan") if torch.is_grad_enabled() is wrong_while else 1)

    monkeypatch.setattr(LogitsTerm, "forward", wrong)
    with pytest.raises(UserError, match=f"learningRate: training diverged, .*{told}"):
        taught(Checkpoints(tmp_path, seconds_between=0, seconds_within=0), earlyStopping={"patience": 1})


def test_minutes_pass_between_saves_within_an_epoch(tmp_path: Path) -> None:
    now = [0.0]
    checkpoints = Checkpoints(tmp_path, clock=lambda: now[0])
    now[0] = 299.0
    assert checkpoints.due()
    assert not checkpoints.due(within_epoch=True)
    now[0] = 300.0
    assert checkpoints.due(within_epoch=True)
