"""Modules that keep what they once computed: cut again in another process, as where a killed pod is gone on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.jobimage.bench import bench_of
from tests.jobimage.test_prune_families import pruned
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.techniques.prune import iterations
from plimsoll_job.techniques.prune.iterations import Course, recover_beside, take_turns
from plimsoll_job.techniques.shape import Bench, Candidate
from plimsoll_job.work import Work

ROWS = single((6,))
TURNS = Prune.model_validate({"criterion": "Magnitude", "amount": "40%", "iterations": 2, "recovery": {"epochs": 1}})


class Keeps(nn.Module):
    """It makes a tensor when it is first asked, and keeps it beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 5)
        self.unit: torch.Tensor | None = None

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.unit is None:
            self.unit = rows.new_ones(1) * 2
        answered: torch.Tensor = self.second(self.first(rows).relu()) * self.unit
        return answered


class Fickle(nn.Module):
    """It computes otherwise each time that it is asked, once that is wanted of it."""

    wanted = False

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 5)
        self.times = 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.times += Fickle.wanted
        answered: torch.Tensor = self.second(self.first(rows).relu())
        return answered + self.second.bias if self.times % 2 else answered


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(Fickle, "wanted", True)


def source(module: nn.Module) -> SourceModel:
    return SourceModel(lambda: module, "tests", "sha256:" + "0" * 64)


def test_what_is_kept_from_the_first_run_keeps_no_channels() -> None:
    torch.manual_seed(0)
    left = pruned(Keeps().eval(), ROWS, "Magnitude", "40%").candidate.module
    assert len(left.get_parameter("first.weight")) < 16


def test_a_module_that_kept_a_tensor_is_gone_on_with_by_one_that_has_not(tmp_path: Path) -> None:
    """The fresh one made the tensor in the run that cuts follow, and in no other: it ended as a fault of Plimsoll."""
    torch.manual_seed(0)
    module = Keeps().eval()
    module(torch.zeros(1, 6))
    candidate = pruned(module, ROWS, "Magnitude", "40%").candidate
    work = Work(tmp_path, ROWS)
    work.save(0, candidate, [])
    finished, again, _ = work.resume(1, source(Keeps().eval()))
    assert (finished, again.fingerprint()) == (1, candidate.fingerprint())


def test_a_step_whose_cuts_cannot_be_made_again_is_taken_anew(tmp_path: Path, fickle: Callable[[], None]) -> None:
    torch.manual_seed(0)
    work = Work(tmp_path, ROWS)
    work.save(0, pruned(Fickle().eval(), ROWS, "Magnitude", "40%").candidate, [])
    fickle()
    assert work.resume(1, source(Fickle().eval()))[0] == 0


def kept_turn(directory: Path) -> Bench:
    """Return a bench in whose store the cut of one turn lies, as the whole and as what other processes train."""
    torch.manual_seed(0)
    bench = bench_of(Fickle().eval(), signature=ROWS)
    cut = pruned(Fickle().eval(), ROWS, "Magnitude", "40%").candidate
    for name in ("iterations", "cut"):
        Checkpoints(directory / name).save(iterations._checkpoint(Course(cut, 0.4, ({},)), skip=0))
    object.__setattr__(bench, "checkpoints", Checkpoints(directory))
    return bench


def test_turns_whose_cuts_cannot_be_made_again_are_taken_anew(tmp_path: Path, fickle: Callable[[], None]) -> None:
    bench, goals = kept_turn(tmp_path), []

    class ReachedError(Exception):
        pass

    def take(_: Candidate, goal: iterations.Goal, __: Bench) -> iterations.Turn:
        goals.append(goal.taken)
        raise ReachedError

    fickle()
    with pytest.raises(ReachedError):
        take_turns(TURNS, Candidate(Fickle().eval()), bench, take)
    assert goals == [0.0]


def test_a_process_beside_that_cannot_cut_so_says_what_to_do(tmp_path: Path, fickle: Callable[[], None]) -> None:
    bench = kept_turn(tmp_path)
    fickle()
    with pytest.raises(UserError, match="train in one process"):
        recover_beside(TURNS, Candidate(Fickle().eval()), bench)
