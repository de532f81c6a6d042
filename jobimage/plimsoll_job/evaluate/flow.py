"""Evaluate: verify, load, predict, time, report. Needs the serving runtime only; torch is never imported here."""

from __future__ import annotations

from collections.abc import Mapping

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.model import digest_of
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import (
    MAX_REPORT_BYTES,
    DataProvenance,
    FallbackCheck,
    LatencyFigures,
    ModelFigures,
    Outcome,
    QualityFigures,
    RatioInterval,
    Report,
    Summary,
)
from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.by_step import measure_steps
from plimsoll_job.evaluate.contestant import DATA_FIELD, Contestant, enter, time_pair
from plimsoll_job.evaluate.environment import check_processor, describe_environment, idle_gpu_notes, saturating_notes
from plimsoll_job.evaluate.latency import latency_figures, ratio_intervals, slower_notes
from plimsoll_job.evaluate.slices import measure_slices
from plimsoll_job.evaluate.yardsticks import YARDSTICKS
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.publish.report import publish_report


def evaluate(request: EvaluationRequest, store: Store, reporter: Reporter) -> tuple[Summary, bytes]:
    """Measure the candidate against the baseline; return the summary and the report's canonical JSON."""
    report = measure(request, store, reporter)
    content = report.canonical_json()
    if len(content) > MAX_REPORT_BYTES:
        raise UserError(f"{DATA_FIELD}.slices: the report has {len(content)} bytes, at most {MAX_REPORT_BYTES} fit")
    uri = publish_report(content, request.output.uri, store)
    reporter.report("publish", 1)
    return (
        Summary(
            outcome=Outcome.DONE,
            reason="Evaluated",
            message=f"{report.data.samples} samples measured",
            report_uri=uri,
            report_digest=digest_of(content),
        ),
        content,
    )


def measure(request: EvaluationRequest, store: Store, reporter: Reporter) -> Report:
    """Return all that was measured."""
    reporter.report("load", 0, request.data.uri)
    artifacts = [open_artifact(ref, store, "spec.output.uri") for ref in (request.baseline, request.candidate)]
    check_processor(artifacts[1].manifest)
    fallback = check_fallback(request.fallback, store)
    reporter.report("evaluate", 0.1, request.data.uri)
    baseline = enter(artifacts[0], request, store)
    candidate = enter(artifacts[1], request, store, baseline)
    samples, yardstick = baseline.samples, YARDSTICKS[request.task]
    evidence = yardstick.compare(baseline.answers, candidate.answers, samples.labels)
    slices = measure_slices(
        yardstick,
        baseline=baseline.answers,
        candidate=candidate.answers,
        labels=samples.labels,
        columns=samples.columns,
        spec_field=f"{DATA_FIELD}.slices",
    )
    reporter.report("measure", 0.3, f"{len(samples)} samples answered")
    latencies, ratios = time_both(baseline, candidate, request, reporter.part(0.3, 0.8))
    reporter.report("measure", 0.8, "what each step did")
    steps = list(measure_steps(baseline, candidate, request, store)) if request.by_step else []
    return Report(
        task=request.task,
        data=DataProvenance(
            uri=request.data.uri,
            digest=samples.digest,
            samples=len(samples),
            answers=evidence.flips.samples if request.task == Task.TOKEN_CLASSIFICATION and evidence.flips else None,
            classes=baseline.server.outputs if request.task in CLASSIFICATION else None,
        ),
        environment=describe_environment(request.settings.latency.threads),
        baseline=figures_of(baseline, baseline.quality(baseline, yardstick), latencies["baseline"]),
        candidate=figures_of(candidate, candidate.quality(baseline, yardstick), latencies["candidate"]),
        flips=evidence.flips,
        errors=evidence.errors,
        similarity=evidence.similarity,
        slices=slices,
        ratios=ratios,
        steps=steps,
        notes=[
            *export_notes(baseline, candidate),
            *slower_notes(ratios),
            *idle_gpu_notes(),
            *saturating_notes(artifacts[0].manifest),
        ],
        lineage=candidate.artifact.manifest.lineage,
        compression_peak_memory_bytes=request.compression_peak_memory_bytes,
        fallback=fallback,
    )


def export_notes(*contestants: Contestant) -> list[str]:
    """Return what was told when the models were exported, once where it is the same of both."""
    return list(dict.fromkeys(note for one in contestants for note in one.artifact.manifest.lineage.notes))


def check_fallback(ref: ArtifactRef | None, store: Store) -> FallbackCheck | None:
    """Return whether the artifact that a rollback would serve is whole, None when there is none to check."""
    if ref is None:
        return None
    try:
        open_artifact(ref, store, "fallback")
    except UserError as error:
        return FallbackCheck(digest=ref.digest, intact=False, message=error.message)
    return FallbackCheck(digest=ref.digest, intact=True, message="every byte is as its manifest says")


def time_both(
    baseline: Contestant, candidate: Contestant, request: EvaluationRequest, reporter: Reporter
) -> tuple[Mapping[str, list[LatencyFigures]], list[RatioInterval]]:
    """Time both models side by side at every batch size."""
    settings = request.settings.latency
    latencies: dict[str, list[LatencyFigures]] = {"baseline": [], "candidate": []}
    ratios: list[RatioInterval] = []
    for done, batch_size in enumerate(settings.batch_sizes):
        reporter.report("measure", done / len(settings.batch_sizes), f"latency at batch size {batch_size}")
        times = time_pair(baseline, candidate, batch_size, request)
        latencies["baseline"].append(latency_figures(times.baseline, batch_size))
        latencies["candidate"].append(latency_figures(times.candidate, batch_size))
        ratios.extend(ratio_intervals(times, batch_size, request.seed))
    return latencies, ratios


def figures_of(contestant: Contestant, quality: QualityFigures, latency: list[LatencyFigures]) -> ModelFigures:
    """Return what was measured of one model."""
    manifest = contestant.artifact.manifest
    return ModelFigures(
        artifact=contestant.artifact.ref,
        size_bytes=contestant.artifact.manifest.serving_bytes,
        parameters=manifest.parameters,
        nonzero_parameters=manifest.nonzero_parameters,
        macs=manifest.macs,
        macs_unknown=manifest.macs_unknown,
        latency=latency,
        **dict(quality),
    )
