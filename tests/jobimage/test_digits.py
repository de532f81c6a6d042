"""The digits example keeps what the README says of it, on real handwriting, in the job image's own flow."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.jobimage.claims import accuracies

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gate import judge
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Report
from plimsoll_api.spec import CompressionJobSpec, EvaluationData
from plimsoll_job.compress import compress
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.examples.digits import from_new_scanner, prepare, with_shifts
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.sessions import serving_gpu

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SILENT = Reporter(emit=lambda _: None)


@dataclass(frozen=True)
class Way:
    """The example's claims, and what its job made."""

    store: Store
    accuracy: float
    spec: CompressionJobSpec
    baseline: ArtifactRef
    candidate: ArtifactRef

    def measured(self, uri: str) -> Report:
        request = EvaluationRequest.of(self.spec, self.baseline, self.candidate)
        return measure(request.model_copy(update={"data": EvaluationData(uri=uri)}), self.store, SILENT)


def spec_of(name: str) -> CompressionJobSpec:
    return CompressionJobSpec.model_validate(yaml.safe_load((EXAMPLE / name).read_text())["spec"])


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    claims = tmp_path_factory.mktemp("digits")
    accuracy = prepare(claims / "models", claims / "data")
    store, spec = Store(claims=claims), spec_of("job.yaml")
    summary = compress(Plan.of(spec, image=""), store, SILENT)
    torch.set_num_threads(1)
    assert summary.baseline is not None
    assert summary.candidate is not None
    return Way(store, accuracy, spec, summary.baseline, summary.candidate)


@pytest.mark.slow
def test_the_baseline_is_as_accurate_as_it_is_said_to_be(way: Way) -> None:
    assert way.accuracy >= 0.97


@pytest.mark.slow
@pytest.mark.skipif(serving_gpu() is not None, reason="its int8 is for processors, and the gate says so")
def test_the_job_passes_with_room_to_spare(way: Way) -> None:
    report = way.measured("pvc://data/digits-test.npz")
    judgement = judge(report, way.spec.gates)
    assert judgement.verdict == "Pass", judgement.message
    assert way.baseline.size_bytes >= 25 * way.candidate.size_bytes
    before, after = accuracies(report)
    assert after >= before - 0.01
    assert report.ratios[0].high < 0.8


@pytest.mark.slow
def test_on_images_of_the_new_scanner_it_fails_and_the_baseline_is_clearly_better(way: Way) -> None:
    report = way.measured("pvc://data/digits-shifted.npz")
    checks = {check.name: check.verdict for check in judge(report, way.spec.gates).checks}
    assert checks["accuracy-maxRegression"] == "Fail"
    before, after = accuracies(report)
    assert before > after + 0.06


@pytest.mark.slow
def test_far_too_much_pruning_fails(way: Way) -> None:
    spec = spec_of("job-too-much.yaml")
    summary = compress(Plan.of(spec, image=""), way.store, SILENT)
    torch.set_num_threads(1)
    assert summary.baseline == way.baseline
    assert summary.candidate is not None
    request = EvaluationRequest.of(spec, summary.baseline, summary.candidate)
    assert judge(measure(request, way.store, SILENT), spec.gates).verdict == "Fail"


def test_shifted_copies_move_by_one_pixel_and_keep_their_labels() -> None:
    images = np.arange(2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
    copies, labels = with_shifts(images, np.array([4, 7]))
    assert copies.shape == (10, 1, 8, 8)
    assert labels.tolist() == [4, 7] * 5
    assert np.array_equal(copies[:2], images)
    assert np.array_equal(copies[2:4, :, :, :-1], images[:, :, :, 1:])
    assert (copies[2:4, :, :, -1] == 0).all()


def test_the_new_scanner_is_brighter() -> None:
    assert from_new_scanner(np.array([0, 1], np.float32)).tolist() == pytest.approx([0.3, 1.8])
