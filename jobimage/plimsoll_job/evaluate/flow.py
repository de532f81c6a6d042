"""Evaluate: verify, load, predict, time, report. Needs the serving runtime only; torch is never imported here."""

from __future__ import annotations

from collections.abc import Sequence

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gates import Metric
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
    StepFigures,
    Summary,
)
from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.by_step import models_between, step_figures
from plimsoll_job.evaluate.contestant import DATA_FIELD, Contestant, enter, timed
from plimsoll_job.evaluate.environment import check_processor, describe_environment, idle_gpu_notes, saturating_notes
from plimsoll_job.evaluate.latency import latency_figures, ratio_intervals, slower_notes
from plimsoll_job.evaluate.processes import time_in_processes
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
    # With them go the graphs, which the processes that time them hold themselves.
    del artifacts
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
    doubts = yardstick.doubts(baseline.answers, samples.labels)
    reporter.report("measure", 0.3, f"{len(samples)} samples answered")
    latencies: dict[str, list[LatencyFigures]] = {"baseline": [], "candidate": []}
    ratios: list[RatioInterval] = []
    steps: list[StepFigures] = []
    # Of a baseline in doubt nothing is judged, so nothing more is measured.
    if not doubts or request.settings.accept_baseline:
        latencies, ratios, steps = time_all(baseline, candidate, request, store, reporter.part(0.3, 1))
    figures = [
        figures_of(one, one.quality(baseline, yardstick), latencies[role])
        for role, one in (("baseline", baseline), ("candidate", candidate))
    ]
    return Report(
        task=request.task,
        data=DataProvenance(
            uri=request.data.uri,
            digest=samples.digest,
            samples=len(samples),
            answers=evidence.flips.samples if request.task == Task.TOKEN_CLASSIFICATION and evidence.flips else None,
            classes=baseline.outputs if request.task in CLASSIFICATION else None,
        ),
        environment=describe_environment(request.settings.latency.threads),
        baseline=figures[0],
        candidate=figures[1],
        flips=evidence.flips,
        errors=evidence.errors,
        similarity=evidence.similarity,
        left_out=evidence.left_out,
        doubts=doubts,
        slices=slices,
        ratios=ratios,
        steps=steps,
        notes=[
            *export_notes(baseline, candidate),
            *(f"Accepted though in doubt: {one}." for one in doubts if request.settings.accept_baseline),
            *not_finite_notes(*figures),
            *slower_notes(ratios),
            *idle_gpu_notes(),
            *saturating_notes(baseline.artifact.manifest),
        ],
        lineage=candidate.artifact.manifest.lineage,
        compression_peak_memory_bytes=request.compression_peak_memory_bytes,
        fallback=fallback,
    )


def export_notes(*contestants: Contestant) -> list[str]:
    """Return what was told when the models were exported, once where it is the same of both."""
    return list(dict.fromkeys(note for one in contestants for note in one.artifact.manifest.lineage.notes))


def not_finite_notes(baseline: ModelFigures, candidate: ModelFigures) -> list[str]:
    """Return a sentence where answers of either model are not finite."""
    if not (baseline.not_finite or candidate.not_finite):
        return []
    return [
        f"Answers that hold NaN or infinity, which are never right: {candidate.not_finite} of the candidate, "
        f"{baseline.not_finite} of the baseline."
    ]


def check_fallback(ref: ArtifactRef | None, store: Store) -> FallbackCheck | None:
    """Return whether the artifact that a rollback would serve is whole, None when there is none to check."""
    if ref is None:
        return None
    try:
        open_artifact(ref, store, "fallback")
    except UserError as error:
        return FallbackCheck(digest=ref.digest, intact=False, message=error.message)
    return FallbackCheck(digest=ref.digest, intact=True, message="every byte is as its manifest says")


def time_all(
    baseline: Contestant, candidate: Contestant, request: EvaluationRequest, store: Store, reporter: Reporter
) -> tuple[dict[str, list[LatencyFigures]], list[RatioInterval], list[StepFigures]]:
    """Time the candidate, and what it was between its steps, beside the baseline in the same processes."""
    settings = request.settings.latency
    reporter.report("measure", 0, "what each step did")
    between = list(models_between(baseline, candidate, request, store)) if request.by_step else []
    others = [timed(baseline, candidate, settings.batch_sizes, store), *(one.timed for one in between)]
    of_candidate, *of_steps = time_in_processes(baseline.graph(store), others, settings, reporter.part(0.1, 1))
    latencies = {
        "baseline": [latency_figures([one.baseline for one in times], size) for size, times in of_candidate.items()],
        "candidate": [latency_figures([one.candidate for one in times], size) for size, times in of_candidate.items()],
    }
    ratios = [ratio for size, times in of_candidate.items() for ratio in ratio_intervals(times, size)]
    steps = [
        step_figures(one.technique, one.artifact, one.quality, _median(ratio_intervals(times, size)))
        for one, found in zip(between, of_steps, strict=True)
        for size, times in found.items()
    ]
    if request.by_step:
        quality = candidate.quality(baseline, YARDSTICKS[request.task])
        last = candidate.artifact.manifest.lineage.steps[-1:]
        steps += [step_figures(one.technique, candidate.artifact, quality, _median(ratios)) for one in last]
    return latencies, ratios, steps


def _median(ratios: Sequence[RatioInterval]) -> RatioInterval:
    return next(one for one in ratios if one.metric is Metric.LATENCY_P50)


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
