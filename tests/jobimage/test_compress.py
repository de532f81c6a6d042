"""The whole of a compression, in this process: what is published, and every way a plan can be wrong."""

import gc
import json
import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.jobimage.claims import DISTILL, INT8, PRUNE, STEPS, UNSTRUCTURED, Claims, compressed, published
from torch import nn

from plimsoll_api.report import Progress
from plimsoll_job import compress as flow
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.load import model
from plimsoll_job.load import plan as plan_module
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.room import bytes_needed, temporary_bytes_needed
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.techniques.table import TECHNIQUES
from plimsoll_job.work import Work

ITERATIONS: dict[str, Any] = {
    "prune": {"criterion": "Magnitude", "amount": "40%", "iterations": 2, "recovery": {"epochs": 1}}
}
STUDENT: dict[str, Any] = {"distill": {"epochs": 1, "student": {"factory": "tests.jobimage.test_compress:wide"}}}


def test_baseline_and_candidate_are_published_with_their_lineage(claims: Claims) -> None:
    summary = compressed(claims)
    baseline, candidate = published(claims, summary.baseline), published(claims, summary.candidate)
    assert baseline["lineage"].keys() == {"architecture", "compared", "notes", "packages", "sourceDigest", "steps"}
    assert baseline["lineage"]["compared"] == 64
    assert baseline["lineage"]["notes"] == []
    assert baseline["lineage"]["steps"] == []
    lineage = candidate["lineage"]
    assert lineage["planDigest"] == claims.plan().content_digest()
    assert summary.baseline is not None
    assert lineage["baselineDigest"] == summary.baseline.digest
    assert lineage["sourceDigest"] == baseline["lineage"]["sourceDigest"]
    assert [step["technique"] for step in lineage["steps"]] == ["prune", "distill", "quantize"]
    prune, distill, quantize = lineage["steps"]
    assert prune["parametersBefore"] == baseline["parameters"]
    assert prune["parametersAfter"] == distill["parametersBefore"] == candidate["parameters"]
    assert prune["macsAfter"] == candidate["macs"] < prune["macsBefore"] == baseline["macs"]
    assert prune["settings"].items() >= PRUNE["prune"].items()
    assert prune["settings"]["granularity"] == "Structured"
    assert quantize["details"]["weightTypes"] == {"int8": 3}
    assert summary.candidate is not None
    assert summary.candidate.size_bytes < 0.4 * summary.baseline.size_bytes


def test_nothing_in_a_manifest_tells_when_or_where(claims: Claims) -> None:
    text = json.dumps(published(claims, compressed(claims).candidate))
    assert str(claims.directory) not in text
    assert "time" not in text.lower().replace("onnxruntime", "")


def test_the_baseline_is_stored_once_for_all_plans(claims: Claims) -> None:
    one, other = compressed(claims, [PRUNE]), compressed(claims, [UNSTRUCTURED])
    assert one.baseline == other.baseline
    assert one.candidate != other.candidate
    assert len(list((claims.directory / "out" / "wine" / "artifacts").iterdir())) == 3


def test_a_torch_model_without_quantization_is_exported_as_it_is(claims: Claims) -> None:
    summary = compressed(claims, [UNSTRUCTURED])
    manifest = published(claims, summary.candidate)
    assert manifest["nonzeroParameters"] < 0.51 * manifest["parameters"]
    assert summary.candidate is not None
    assert summary.baseline is not None
    assert abs(summary.candidate.size_bytes - summary.baseline.size_bytes) < 200


def test_progress_goes_from_0_to_100_and_never_back(claims: Claims) -> None:
    heard: list[Progress] = []
    flow.compress(claims.plan(), Store(claims=claims.directory), Reporter(emit=heard.append))
    percents = [progress.percent for progress in heard]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    stages = list(dict.fromkeys(progress.stage for progress in heard))
    assert stages == ["load", "analyse", "prune", "distill", "quantize", "export", "publish"]


@pytest.mark.parametrize(
    ("step", "spec_field"),
    [
        (INT8, "spec.model.uri"),
        ({"distill": {"epochs": 1, "student": {"factory": "tests.jobimage.test_compress:wide"}}}, "spec.steps[0].dist"),
    ],
)
def test_a_model_that_no_onnx_file_holds_is_refused_before_any_work(
    claims: Claims, monkeypatch: pytest.MonkeyPatch, step: dict[str, Any], spec_field: str
) -> None:
    weights = count_bytes(load_file(claims.weights).values())
    monkeypatch.setattr(plan_module, "MAX_WEIGHTS_BYTES", weights - 1 if step is INT8 else weights)
    with pytest.raises(UserError, match=rf"^{re.escape(spec_field)}.*: the model has \d+ bytes of weights") as error:
        compressed(claims, [step])
    assert error.value.reason == "TooLarge"
    assert not list((claims.directory / "out").iterdir())


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 512), nn.ReLU(), nn.Linear(512, 3))


@pytest.mark.parametrize(
    "step",
    [
        PRUNE,
        UNSTRUCTURED,
        {"prune": {"criterion": "Redundancy", "amount": "30%"}},
        {"prune": {"criterion": "Magnitude", "amount": "30%"}},
        ITERATIONS,
        {"prune": {"criterion": "Activation", "amount": "30%", "allocation": "Sensitivity"}},
        {"factorize": {"method": "ActivationSvd", "amount": "30%"}},
        DISTILL,
        INT8,
        {"quantize": {"scheme": "Int8QAT", "training": {"epochs": 1}}},
    ],
)
def test_whatever_becomes_of_the_candidate_the_model_as_given_is_read_as_it_was(
    claims: Claims, step: dict[str, Any]
) -> None:
    store = Store(claims=claims.directory)
    plan = claims.plan([step])
    loaded = load_plan(plan, store, Reporter(emit=lambda _: None))
    before = Candidate(loaded.source.module).fingerprint()
    work = Work(flow.work_directory(plan, store), loaded.signature)
    silent = Reporter(emit=lambda _: None)
    candidate, _ = flow.take_steps(plan, loaded, work, lambda *_: None, silent)  # type: ignore[arg-type]
    assert candidate.fingerprint() != before
    assert Candidate(loaded.source.module).fingerprint() == before
    assert not any(parameter.grad is not None for parameter in candidate.module.parameters())


@pytest.mark.parametrize(
    ("steps", "held"),
    [
        # At the start the candidate is what was read.
        ([PRUNE, INT8], [1, 0]),
        ([PRUNE, DISTILL, INT8], [1, 0, 0, 0]),
        ([DISTILL], [1, 1]),
        ([ITERATIONS], [1, 0]),
        ([PRUNE, STUDENT], [1, 0, 0]),
        ([STUDENT], [1, 0]),
    ],
)
def test_the_model_as_given_is_not_held_beside_what_learns_from_it(
    claims: Claims, monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Any]], held: list[int]
) -> None:
    made: list[weakref.ref[nn.Module]] = []
    found = list[int]()

    def read(*arguments: Any) -> nn.Module:
        module = read_module(*arguments)
        made.append(weakref.ref(module))
        return module

    def watched(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            gc.collect()
            alive = [module for one in made if (module := one()) is not None]
            found.append(sum(any(not weight.is_meta for weight in module.parameters()) for module in alive))
            del alive
            return function(*arguments)

        return call

    read_module = model._read_module
    monkeypatch.setattr(model, "_read_module", read)
    monkeypatch.setattr(Training, "run", watched(Training.run))
    for technique, function in TECHNIQUES.items():
        monkeypatch.setitem(TECHNIQUES, technique, watched(function))
    compressed(claims, steps)
    assert found == held


def test_a_gpu_without_room_is_said_with_the_step(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    # As torch raises it on a GPU, which few machines of tests have.
    def fill(*_: Any) -> Applied:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")

    monkeypatch.setitem(TECHNIQUES, "distill", fill)
    with pytest.raises(UserError) as error:
        compressed(claims, [PRUNE, DISTILL])
    assert error.value.reason == "GpuTooSmall"
    assert error.value.message.startswith(
        "spec.runtime.resources.limits: the GPU's memory does not hold what spec.steps[1].distill computes there "
        "(CUDA out of memory. Tried to allocate 2.00 GiB); ask for a larger GPU, for none, or for a smaller "
    )


def test_a_store_mounted_for_reading_is_told_at_the_start(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "out" not in str(path) and allowed(path, mode))
    with pytest.raises(UserError, match=r"^spec\.output\.uri: pvc://out/wine may not be written") as error:
        compressed(claims)
    assert error.value.reason == "StoreReadOnly"
    assert not list((claims.directory / "out").iterdir())


def test_too_little_room_is_told_at_the_start(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = count_bytes(load_file(claims.weights).values())
    needed = bytes_needed(claims.plan(), weights)
    written = sum(path.stat().st_size for path in written_by(claims, monkeypatch))
    assert 2 * weights < written < needed
    shutil.rmtree(claims.directory / "out" / "wine")
    # Temporary files lie on the same disk here.
    needed += temporary_bytes_needed(claims.plan(), weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        UserError, match=rf"spec.output.uri: .* has {needed - 1} bytes free, .* up to {needed} "
    ) as error:
        compressed(claims)
    assert error.value.reason == "StoreFull"
    assert not list((claims.directory / "out").iterdir())


def test_too_little_room_for_temporary_files_is_told_at_the_start(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = count_bytes(load_file(claims.weights).values())
    needed, passing = bytes_needed(claims.plan(), weights), temporary_bytes_needed(claims.plan(), weights)
    # A file system of its own, on every Linux.
    elsewhere = Path("/dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=passing - 1 if path == elsewhere else needed)
    )
    with pytest.raises(
        UserError, match=rf"spec.runtime: /dev/shm has {passing - 1} bytes free, .* up to {passing} "
    ) as error:
        compressed(claims)
    assert error.value.reason == "NodeFull"


def count_bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def written_by(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return all files that lie in the output when nothing that a plan writes is ever taken away."""
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        patched.setattr(Checkpoints, "due", lambda *_, **__: False)
        compressed(claims)
    return [path for path in (claims.directory / "out" / "wine").rglob("*") if path.is_file()]


def test_a_step_that_changed_nothing_is_an_error(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TECHNIQUES, "prune", lambda settings, candidate, bench: Applied(candidate))
    with pytest.raises(UserError, match=r"spec.steps\[0\].prune: the step changed nothing") as error:
        compressed(claims)
    assert error.value.reason == "NothingChanged"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": {"uri": "pvc://data/train.parquet", "inputs": ["c0"]}},
         r"spec.data.calibration.inputs: one sample has the shape \[1\], the model takes \[13\]"),
        ({"train": {"uri": "pvc://data/none.parquet"}}, r"spec.data.train.uri: there is no file"),
        ({"train": None}, r"spec.data.train: spec.steps\[1\].distill needs training data"),
        ({"calibration": None}, r"spec.data.calibration: spec.steps\[0\].prune needs calibration data"),
        ({"output": {"uri": "pvc://other/out"}}, r"spec.output.uri: the claim 'other' is not mounted"),
        ({"model": {"uri": "pvc://models/wine", "architecture": {"factory": "plimsoll_job.zoo:digits_cnn"}}},
         r"spec.model.uri: the weights do not fit the module; tensors missing: features.0.weight"),
        ({"model": {"uri": "pvc://models/none", "architecture": {"factory": "plimsoll_job.zoo:wine_mlp"}}},
         r"spec.model.uri: there is no file pvc://models/none"),
    ],
)  # fmt: skip
def test_wrong_plans_name_their_field(claims: Claims, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compressed(claims, **changes)


def test_more_calibration_samples_than_there_are_is_refused(claims: Claims) -> None:
    calibration = claims.plan().calibration
    assert calibration is not None
    wanted = calibration.model_copy(update={"samples": 91})
    with pytest.raises(UserError, match=r"spec.data.calibration.samples: 91 are wanted, .* has 90"):
        compressed(claims, calibration=wanted)


def test_half_precision_weights_are_taken(claims: Claims) -> None:
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in load_file(claims.weights).items()
    }
    save_file(halves, claims.weights)
    assert compressed(claims, [PRUNE]).outcome == "Done"


def test_one_plan_gives_one_artifact(claims: Claims, wine_source: Path, tmp_path: Path) -> None:
    other = Claims.copy_of(wine_source, tmp_path / "other")
    assert compressed(claims).candidate == compressed(other).candidate
    shutil.rmtree(other.directory / "out")
    (other.directory / "out").mkdir()
    assert compressed(other, seed=1).candidate != compressed(claims).candidate


def test_every_output_of_the_artifact_is_finite(claims: Claims) -> None:
    ref = compressed(claims, STEPS).candidate
    assert ref is not None
    session = ort.InferenceSession(claims.directory / ref.uri.removeprefix("pvc://") / "model.onnx")
    (logits,) = session.run(None, {"inputs": np.random.default_rng(0).standard_normal((5, 13)).astype(np.float32)})
    assert logits.shape == (5, 3)
    assert np.isfinite(logits).all()


def test_weights_that_int8_rounds_to_zero_are_counted_as_zero(claims: Claims) -> None:
    manifest = published(claims, compressed(claims, [INT8]).candidate)
    assert 0.95 * manifest["parameters"] < manifest["nonzeroParameters"] < manifest["parameters"]


def test_steps_may_be_repeated(claims: Claims) -> None:
    again = {"prune": {"criterion": "Magnitude", "amount": "30%"}}
    steps = [PRUNE, DISTILL, again, UNSTRUCTURED, DISTILL, INT8]
    records = published(claims, compressed(claims, steps).candidate)["lineage"]["steps"]
    assert records[4]["nonzeroAfter"] <= records[3]["nonzeroAfter"] + 64
    assert records[5]["parametersAfter"] < 0.4 * records[0]["parametersBefore"]
