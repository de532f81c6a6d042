"""A compression that ended or was killed before: what is kept of it, what is damaged, and what is not done again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import PRUNE, UNSTRUCTURED, Claims, compressed

from plimsoll_job import __main__ as main
from plimsoll_job import compress as flow
from plimsoll_job.__main__ import build_parser, compress_verb
from plimsoll_job.errors import UserError
from plimsoll_job.load.model import load_model
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.techniques.table import TECHNIQUES, technique_of
from plimsoll_job.work import Work
from plimsoll_job.zoo import wine_mlp


def work_of(claims: Claims) -> Path:
    (directory,) = (claims.directory / "out" / "wine" / "work").iterdir()
    return directory


def test_a_finished_plan_is_not_carried_out_again(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compressed(claims)
    assert sorted(path.name for path in work_of(claims).iterdir()) == ["done.json", "inputs.json", "peak-memory-0.json"]
    monkeypatch.setattr(flow, "take_steps", None)
    assert compressed(claims) == first


def other_weights(claims: Claims) -> None:
    torch.manual_seed(7)
    save_file(wine_mlp().state_dict(), claims.weights)


def other_data(claims: Claims) -> None:
    file = claims.directory / "data" / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, len(table) - 8), file)


@pytest.mark.parametrize("change", [other_weights, other_data])
@pytest.mark.parametrize("ended", [True, False])
def test_what_was_made_of_other_files_of_the_same_names_is_not_gone_on_from(
    claims: Claims, wine_source: Path, tmp_path: Path, *, change: Callable[[Claims], None], ended: bool
) -> None:
    if ended:
        before = compressed(claims)
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(TECHNIQUES, "quantize", die)
            with pytest.raises(Killed):
                compressed(claims)
    change(claims)
    untouched = Claims.copy_of(wine_source, tmp_path / "untouched")
    change(untouched)
    after = compressed(claims)
    assert after == compressed(untouched)
    assert not ended or after.candidate != before.candidate


def test_a_finished_plan_whose_artifact_was_damaged_is_carried_out_again(claims: Claims) -> None:
    first = compressed(claims)
    assert first.candidate is not None
    (claims.directory / first.candidate.uri.removeprefix("pvc://") / "model.onnx").write_bytes(b"torn")
    assert compressed(claims) == first
    assert ort.InferenceSession(claims.directory / first.candidate.uri.removeprefix("pvc://") / "model.onnx")


class Killed(BaseException):
    """The pod dies."""


def die(*_: Any) -> Applied:
    raise Killed


@pytest.mark.parametrize("deadly", [0, 1, 2])
def test_a_killed_run_goes_on_from_its_finished_steps(
    claims: Claims, wine_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: int
) -> None:
    undisturbed = compressed(Claims.copy_of(wine_source, tmp_path / "undisturbed"))
    names = [technique_of(step) for step in claims.plan().steps]
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, names[deadly], die)
        with pytest.raises(Killed):
            compressed(claims)
    kept = (claims.directory / "out" / "wine").glob("work/*/step-*")
    assert sorted(path.name for path in kept) == [f"step-{index:02d}" for index in range(deadly)]
    for finished in names[:deadly]:
        monkeypatch.setitem(TECHNIQUES, finished, die)
    assert compressed(claims) == undisturbed


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_a_damaged_state_is_passed_over(claims: Claims, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, "quantize", die)
        with pytest.raises(Killed):
            compressed(claims)
    state = work_of(claims) / "step-01" / file
    state.write_bytes(state.read_bytes()[:-3] + b"xyz")
    taken: list[str] = []
    distill = TECHNIQUES["distill"]

    def watched(settings: Any, candidate: Candidate, bench: Bench) -> Applied:
        taken.append("distill")
        return distill(settings, candidate, bench)

    monkeypatch.setitem(TECHNIQUES, "distill", watched)
    monkeypatch.setitem(TECHNIQUES, "prune", die)
    assert compressed(claims).outcome == "Done"
    assert taken == ["distill"]


def test_a_run_that_has_begun_is_not_asked_for_all_the_room_again(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, "quantize", die)
        with pytest.raises(Killed):
            compressed(claims)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    assert compressed(claims).outcome == "Done"


def test_the_most_memory_of_all_pods_is_kept_by_rank(tmp_path: Path) -> None:
    assert Work(tmp_path).keep_peak_memory(300) == 300
    assert Work(tmp_path).keep_peak_memory(200) == 300
    assert Work(tmp_path).keep_peak_memory(250, rank=1) == 250
    assert Work(tmp_path).keep_peak_memory(400) == 400
    (tmp_path / "peak-memory-0.json").write_text("torn")
    assert Work(tmp_path).keep_peak_memory(200) == 200


def test_a_pod_that_goes_on_tells_the_most_that_any_held(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    file = claims.directory.parent / "plan.json"
    file.write_bytes(claims.plan().canonical_json())
    arguments = build_parser().parse_args(["compress", "--plan", str(file), "--claims", str(claims.directory)])
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, "quantize", die)
        patched.setattr(main, "peak_memory_bytes", lambda: 1 << 50)
        with pytest.raises(Killed):
            compress_verb(arguments)
    assert compress_verb(arguments).peak_memory_bytes == 1 << 50
    # Also the pod that finds all done.
    assert compress_verb(arguments).peak_memory_bytes == 1 << 50


def test_a_request_that_is_wrong_leaves_nothing_behind(claims: Claims) -> None:
    file = claims.directory.parent / "plan.json"
    file.write_bytes(claims.plan(model={"uri": "pvc://models/none", "architecture": {"onnx": {}}}).canonical_json())
    with pytest.raises(UserError):
        compress_verb(build_parser().parse_args(["compress", "--plan", str(file), "--claims", str(claims.directory)]))
    assert list((claims.directory / "out").iterdir()) == []


def test_cuts_and_zeros_come_back_from_the_work_directory(claims: Claims, store: Store, tmp_path: Path) -> None:
    plan = claims.plan([PRUNE, UNSTRUCTURED])
    loaded = load_plan(plan, store, Reporter(emit=lambda _: None))
    work = Work(tmp_path / "work", loaded.signature)
    silent = Reporter(emit=lambda _: None)
    publish = flow.publishing(plan, loaded, flow.publish_baseline(plan, loaded, store, silent), store)
    candidate, records = flow.take_steps(plan, loaded, work, publish, silent)
    finished, again, same_records = Work(tmp_path / "work", loaded.signature).resume(2, load_model(plan.model, store))
    assert finished == 2
    assert (again.changes, again.sparse, same_records) == (candidate.changes, candidate.sparse, records)
    assert again.fingerprint() == candidate.fingerprint()
