"""Several processes under torchrun train what one would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from tests.jobimage.claims import COLUMNS, Claims, published, run
from tests.jobimage.modules import plain_mlp

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.plan import Plan
from plimsoll_api.report import EXIT_REQUEST_WRONG, PROGRESS_MARK, Outcome, Summary
from plimsoll_job.ranks import Ranks

DISTILL: dict[str, Any] = {
    "distill": {
        "epochs": 5, "batchSize": 16, "microBatchSize": 5, "learningRate": "0.01",
        "losses": [{"logits": {}}, {"labels": {}}, {"features": {}}], "earlyStopping": {"patience": 5},
    }
}  # fmt: skip
QUANTIZE: dict[str, Any] = {"quantize": {"scheme": "Int8QAT", "training": {"epochs": 2, "batchSize": 16}}}
MISSING: dict[str, Any] = {"uri": "pvc://data/none.parquet", "inputs": COLUMNS}
RECOVERED: dict[str, Any] = {
    "iterations": 3, "recovery": {"epochs": 2, "batchSize": 16, "learningRate": "0.01"},
}  # fmt: skip
CHANNELS: dict[str, Any] = {"criterion": "Magnitude", "amount": "40%"}
ZEROS: dict[str, Any] = {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "60%"}
STEPS = [DISTILL, {"prune": CHANNELS | RECOVERED}, {"prune": ZEROS | RECOVERED}, DISTILL]


@pytest.fixture(autouse=True)
def _on_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide GPUs from the processes: each would need one of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_torchrun_tells_each_process_its_place() -> None:
    assert Ranks.of_environment({}) == Ranks(0, 1, 0)
    assert Ranks.of_environment({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Ranks(3, 4, 1)


def test_the_shares_of_a_batch_are_the_batch() -> None:
    shares = [Ranks(rank, 3).share(torch.arange(8)).tolist() for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(8))
    assert [len(share) for share in shares] == [3, 3, 2]


def weights_of(claims: Claims, ref: ArtifactRef | None) -> dict[str, torch.Tensor]:
    assert ref is not None
    model = onnx.load(claims.directory / ref.uri.removeprefix("pvc://") / "model.onnx")
    return {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in model.graph.initializer}


def start_two(claims: Claims, plan: Plan, directory: Path) -> tuple[subprocess.CompletedProcess[str], Summary]:
    """Return how a run of two processes ended, and what it told."""
    file, ending = directory / "plan.json", directory / "ending.json"
    file.write_bytes(plan.canonical_json())
    ended = subprocess.run(
        [sys.executable, "-m", "plimsoll_job", "compress", "--processes=2", "--plan", str(file),
         "--claims", str(claims.directory), "--termination-file", str(ending)],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    return ended, Summary.model_validate_json(ending.read_bytes())


def run_two(claims: Claims, plan: Plan, directory: Path) -> tuple[Summary, str]:
    """Return the summary and the log of two processes."""
    ended, summary = start_two(claims, plan, directory)
    assert ended.returncode == 0, ended.stderr
    return summary, ended.stdout


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """By gradients, whose rounding stays as small as it is; a fault in the shares, the exchange or the scale shows.

    AdamW divides a gradient by its own size: of one that is scaled wrongly it makes the same step.
    """
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.jobimage.ranked", str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    told, _ = ranks[0].communicate(timeout=300)
    assert [one.wait(timeout=60) for one in ranks] == [0, 0]
    apart = json.loads(told)
    assert apart["SGD"].pop("none") < 1e-4
    assert min(apart["SGD"].values()) > 0.1
    assert apart["AdamW"]["none"] < 1e-4
    assert apart["AdamW"]["summed"] < 1e-2 < apart["AdamW"]["first"]


@pytest.mark.slow
def test_a_wrong_request_of_several_processes_is_not_tried_again(claims: Claims, tmp_path: Path) -> None:
    ended, summary = start_two(claims, claims.plan(STEPS, train=MISSING), tmp_path)
    assert ended.returncode == EXIT_REQUEST_WRONG, ended.stderr
    assert summary.outcome is Outcome.REQUEST_WRONG
    assert summary.message.startswith("spec.data.train.uri")


@pytest.mark.slow
def test_two_processes_train_and_recover_as_one_does(claims: Claims, wine_source: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(plain_mlp().state_dict(), claims.weights)
    other = Claims.copy_of(wine_source, tmp_path / "two")
    other.weights.write_bytes(claims.weights.read_bytes())
    plan = claims.plan(
        STEPS,
        model={"uri": "pvc://models/wine", "architecture": {"factory": "tests.jobimage.modules:plain_mlp"}},
        calibration=None,
    )
    alone = run(claims, "compress", plan)
    assert alone.code == 0, alone.log
    summary, log = run_two(other, plan, tmp_path)
    assert alone.summary.peak_memory_bytes is not None
    assert summary.peak_memory_bytes is not None
    assert 1.5 < summary.peak_memory_bytes / alone.summary.peak_memory_bytes < 2.5
    one, two = weights_of(claims, alone.summary.candidate), weights_of(other, summary.candidate)
    untrained = weights_of(claims, alone.summary.baseline)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.shape == two[name].shape
        assert torch.equal(tensor == 0, two[name] == 0), name
        # Sums are rounded in another order, and each step goes on to part the weights: a noise of 1e-6 of the largest
        # gradient in every step of these parts them by 2e-4, another share of the samples by a third of the way.
        distance = torch.linalg.vector_norm(tensor - two[name]) / torch.linalg.vector_norm(tensor)
        assert distance < 2e-3, (name, distance)
    assert any(tensor.shape != untrained[name].shape for name, tensor in one.items() if name in untrained)
    # Only the first process tells how far it is, and the record says how many there were.
    first, _ = (line for line in log.splitlines() if '"stage":"load"' in line)
    assert first.startswith(PROGRESS_MARK)
    details = [step["details"] for step in published(other, summary.candidate)["lineage"]["steps"]]
    assert details[0]["processes"] == details[3]["processes"] == 2
    wanted = [step["details"] for step in published(claims, alone.summary.candidate)["lineage"]["steps"]]
    assert details[0]["loss"] == pytest.approx(wanted[0]["loss"], rel=1e-3)
    assert details[0]["heldOut"]["curve"] == pytest.approx(wanted[0]["heldOut"]["curve"], rel=1e-3)
    for mine, theirs in zip(details[1:3], wanted[1:3], strict=True):
        for turn, turn_alone in zip(mine["iterations"][:2], theirs["iterations"][:2], strict=True):
            recovery, recovery_alone = turn["recovery"], turn_alone["recovery"]
            assert (recovery["processes"], recovery_alone["processes"]) == (2, 1)
            assert recovery["loss"] == pytest.approx(recovery_alone["loss"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_train_a_quantized_model(claims: Claims, tmp_path: Path) -> None:
    summary, _ = run_two(claims, claims.plan([QUANTIZE]), tmp_path)
    (step,) = published(claims, summary.candidate)["lineage"]["steps"]
    assert step["details"]["training"]["processes"] == 2
    assert step["details"]["training"]["servedToTrained"]["error"] < 1e-3


@pytest.mark.slow
def test_no_process_goes_on_training_when_the_one_that_started_it_was_killed(claims: Claims, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(claims.plan([{"distill": {"epochs": 10_000}}]).canonical_json())
    pod = subprocess.Popen(
        [sys.executable, "-m", "plimsoll_job", "compress", "--processes=2", "--plan", str(tmp_path / "plan.json"),
         "--claims", str(claims.directory), "--termination-file", str(tmp_path / "ending.json")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert pod.stdout is not None
    assert any('"message":"epoch 1/' in line for line in pod.stdout)
    below = psutil.Process(pod.pid).children(recursive=True)
    assert len(below) >= 3  # torchrun and two ranks
    pod.kill()
    pod.wait()
    left = psutil.wait_procs(below, timeout=40)[1]
    for one in left:
        one.kill()
    assert not left
