"""Evaluation rests on verified bytes, reads the data as its fields say, and reports what it measured."""

import ast
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.jobimage.claims import COLUMNS, Claims, accuracies

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_api.gate import judge
from plimsoll_api.model import digest_of
from plimsoll_api.report import MAX_REPORT_BYTES, Report, Summary
from plimsoll_api.spec import Gate, Metric, Task
from plimsoll_api.tasks import quality_of
from plimsoll_job import compress as flow
from plimsoll_job import evaluate as evaluate_package
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate import environment
from plimsoll_job.evaluate.flow import evaluate, measure
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter

SILENT = Reporter(emit=lambda _: None)


@pytest.fixture(scope="module")
def compressed_source(wine_source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    claims = Claims.copy_of(wine_source, tmp_path_factory.mktemp("compressed") / "claims")
    return claims.directory, flow.compress(claims.plan(), Store(claims=claims.directory), SILENT)


@pytest.fixture
def made(compressed_source: tuple[Path, Summary], tmp_path: Path) -> tuple[Claims, Summary]:
    shutil.copytree(compressed_source[0], tmp_path / "claims")
    return Claims(tmp_path / "claims"), compressed_source[1]


def measured(made: tuple[Claims, Summary], **changes: Any) -> Report:
    claims, summary = made
    assert summary.baseline is not None
    assert summary.candidate is not None
    request = claims.request(summary.baseline, changes.pop("candidate", summary.candidate), **changes)
    return measure(request, Store(claims=claims.directory), SILENT)


def test_the_report_holds_every_figure_of_both_models(made: tuple[Claims, Summary]) -> None:
    report = measured(made, compression_peak_memory_bytes=300_000_000)
    baseline, candidate, flips = report.baseline, report.candidate, report.flips
    assert baseline is not None
    assert candidate is not None
    assert flips is not None
    assert accuracies(report)[0] > 0.9
    assert candidate.size_bytes < 0.4 * baseline.size_bytes
    assert (candidate.macs or 0) < (baseline.macs or 0)
    assert (flips.both_right + flips.right_to_wrong) / flips.samples == pytest.approx(baseline.accuracy)
    assert (flips.both_right + flips.wrong_to_right) / flips.samples == pytest.approx(candidate.accuracy)
    assert sum((flips.both_right, flips.right_to_wrong, flips.wrong_to_right, flips.both_wrong)) == flips.samples == 88
    assert [one.batch_size for one in candidate.latency] == [1, 8]
    assert len(report.ratios) == 8
    assert [(one.column, one.value) for one in report.slices] == [("strength", "light"), ("strength", "strong")]
    assert sum(one.samples for one in report.slices) == 88
    assert report.data.classes == 3
    assert report.environment.peak_memory_bytes > 10_000_000
    assert report.compression_peak_memory_bytes == 300_000_000
    assert report.lineage is not None
    assert len(report.lineage.steps) == 3


def test_the_gate_can_judge_every_metric(made: tuple[Claims, Summary]) -> None:
    # Of two processes anything is possible.
    report = measured(made, settings={"latency": {"batchSizes": [1], "rounds": 16, "processes": 4}})
    bounds = {
        Metric.ACCURACY: {"maxRegression": "60%"}, Metric.MACRO_F1: {"min": "10%"},
        Metric.SIZE: {"minReduction": "50%"},
        Metric.PARAMETERS: {"maxRatio": "1"}, Metric.MACS: {"minReduction": "10%"}, Metric.LATENCY_P50: {"max": "10s"},
        Metric.LATENCY_P95: {"maxRatio": "1000"}, Metric.LATENCY_P99: {"maxRatio": "1000"},
        Metric.THROUGHPUT: {"minRatio": "0.001"}, Metric.NOT_FINITE: {"maxShare": "0"},
    }  # fmt: skip
    others = set(quality_of(Task.REGRESSION)) | set(quality_of(Task.EMBEDDING))
    assert bounds.keys() == set(Metric) - others
    gates = [Gate.model_validate({"metric": metric, **bound}) for metric, bound in bounds.items()]
    assert judge(report, gates).verdict == "Pass", judge(report, gates).message


def test_a_model_against_itself_flips_nothing(made: tuple[Claims, Summary]) -> None:
    report = measured(made, candidate=made[1].baseline)
    assert report.flips is not None
    assert (report.flips.changed, report.flips.right_to_wrong, report.flips.wrong_to_right) == (0, 0, 0)


def test_the_report_is_stored_by_its_digest(made: tuple[Claims, Summary]) -> None:
    claims, summary = made
    assert summary.baseline is not None
    assert summary.candidate is not None
    request = claims.request(summary.baseline, summary.candidate)
    ended, content = evaluate(request, Store(claims=claims.directory), SILENT)
    assert ended.report_digest == digest_of(content)
    assert ended.report_uri is not None
    assert (claims.directory / ended.report_uri.removeprefix("pvc://")).read_bytes() == content
    assert Report.model_validate_json(content).canonical_json() == content
    assert len(content) < MAX_REPORT_BYTES / 10


def test_every_step_has_a_row(made: tuple[Claims, Summary]) -> None:
    assert measured(made).steps == []
    report = measured(made, by_step=True)
    assert report.candidate is not None
    assert report.baseline is not None
    pruned, distilled, quantized = report.steps
    assert [step.technique for step in report.steps] == ["prune", "distill", "quantize"]
    assert report.baseline.size_bytes > pruned.size_bytes == distilled.size_bytes > quantized.size_bytes
    assert (pruned.accuracy or 1) < (distilled.accuracy or 0)
    assert (report.baseline.macs or 0) > (pruned.macs or 0) == distilled.macs
    assert quantized.artifact_digest == report.candidate.artifact.digest
    assert (quantized.accuracy, quantized.size_bytes) == (report.candidate.accuracy, report.candidate.size_bytes)
    assert {(step.latency.metric, step.latency.batch_size) for step in report.steps} == {(Metric.LATENCY_P50, 1)}


def test_a_model_between_that_is_gone_has_no_row(made: tuple[Claims, Summary]) -> None:
    claims, summary = made
    assert summary.candidate is not None
    between = measured(made, by_step=True).steps[0].artifact_digest
    shutil.rmtree(claims.directory / summary.candidate.beside(between).removeprefix("pvc://"))
    assert [step.technique for step in measured(made, by_step=True).steps] == ["distill", "quantize"]


def test_the_fallback_is_verified_too(made: tuple[Claims, Summary]) -> None:
    summary = made[1]
    assert measured(made).fallback is None
    report = measured(made, fallback=summary.baseline)
    assert report.fallback is not None
    assert report.fallback.intact
    assert summary.baseline is not None
    lost = summary.baseline.model_copy(update={"uri": "pvc://out/wine/artifacts/none"})
    report = measured(made, fallback=lost)
    assert report.fallback is not None
    assert not report.fallback.intact
    assert "there is no file" in report.fallback.message


@pytest.mark.parametrize("name", ["baseline", "candidate"])
def test_one_changed_byte_is_never_measured(made: tuple[Claims, Summary], name: str) -> None:
    claims, summary = made
    file = claims.directory / getattr(summary, name).uri.removeprefix("pvc://") / "model.onnx"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model.onnx of .* differs from its manifest"):
        measured(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": COLUMNS[:12]},
            r"spec.data.evaluation.inputs: one sample has the shape \[12\], the model takes \[13\]",
        ),
        ({"labels": "c0"}, r"spec.data.evaluation.labels: expected integer class labels"),
        ({"slices": [{"column": "writer"}]}, r"spec.data.evaluation.slices: .* no array or column 'writer'"),
        ({"uri": "pvc://data/none.npz"}, r"spec.data.evaluation.uri: there is no file"),
    ],
)
def test_wrong_data_names_its_field(made: tuple[Claims, Summary], changes: dict[str, Any], message: str) -> None:
    data = {"uri": "pvc://data/test.parquet", "inputs": COLUMNS} | changes
    with pytest.raises(UserError, match=message):
        measured(made, data=data)


def test_a_baseline_in_doubt_is_timed_once_it_is_accepted(made: tuple[Claims, Summary]) -> None:
    file = made[0].directory / "data" / "test.parquet"
    table = pq.read_table(file)
    index = table.column_names.index("labels")
    labels = pa.array([(label + 1) % 3 for label in table["labels"].to_pylist()])
    pq.write_table(table.set_column(index, "labels", labels), file)
    gates = [Gate.model_validate({"metric": "accuracy", "maxRegression": "60%"})]
    doubted = measured(made, by_step=True)
    assert "labels were in another order" in doubted.doubts[-1]
    assert doubted.baseline is not None
    assert (doubted.ratios, doubted.steps, doubted.baseline.latency) == ([], [], [])
    assert [check.name for check in judge(doubted, gates).checks] == ["baseline"]
    latency = {"batchSizes": [1], "rounds": 8, "processes": 2}
    accepted = measured(made, settings={"latency": latency, "acceptBaseline": True})
    assert accepted.doubts == doubted.doubts
    assert accepted.ratios
    assert accepted.notes[0] == f"Accepted though in doubt: {doubted.doubts[0]}."


def test_labels_beyond_the_models_classes_are_refused(made: tuple[Claims, Summary]) -> None:
    file = made[0].directory / "data" / "test.parquet"
    table = pq.read_table(file)
    index = table.column_names.index("labels")
    labels = pa.array([3, *table["labels"].to_pylist()[1:]])
    pq.write_table(table.set_column(index, "labels", labels), file)
    with pytest.raises(UserError, match=r"spec.data.evaluation.labels: label 3 is beyond the model's 3 classes"):
        measured(made)


def test_no_module_of_the_evaluation_imports_torch() -> None:
    (folder,) = evaluate_package.__path__
    for file in Path(folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), file


def test_a_candidate_that_requires_what_the_processor_lacks_is_not_judged_here(
    made: tuple[Claims, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_artifact(made[1].candidate, Store(claims=made[0].directory), "f").manifest  # type: ignore[arg-type]
    assert manifest.requires == []
    asking = manifest.model_copy(update={"requires": [ProcessorFeature.VNNI]})
    monkeypatch.setattr(environment, "lacking", list)
    environment.check_processor(manifest)
    assert environment.saturating_notes(manifest) == []
    with pytest.raises(
        UserError, match=r"spec.evaluationRuntime: the candidate requires Vnni, which this pod's"
    ) as error:
        environment.check_processor(asking)
    assert error.value.reason == "ProcessorLacks"
    (note,) = environment.saturating_notes(asking)
    assert note.startswith("The baseline requires Vnni, which this processor")
    monkeypatch.setattr(environment, "lacking", lambda _: [ProcessorFeature.VNNI])
    with pytest.raises(UserError, match="the candidate requires Vnni"):
        measured(made)
