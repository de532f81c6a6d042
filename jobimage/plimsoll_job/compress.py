"""Compress: load, analyse, take the steps, export, publish. Reads the plan, and nothing of the evaluation data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from plimsoll_api.artifact import MODEL_FILE, ArtifactRef, Leftover, Lineage, StepRecord
from plimsoll_api.plan import Plan
from plimsoll_api.report import Outcome, Summary
from plimsoll_api.spec import OutputFormat
from plimsoll_job.boundary import boundary
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.export.outputs import write_outputs
from plimsoll_job.figures import ModuleFigures, count
from plimsoll_job.load.examples import samples_in
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.plan import Loaded, load_plan
from plimsoll_job.load.roles import load_teacher
from plimsoll_job.load.store import Store
from plimsoll_job.memory import give_back, keep_tensors_apart, peak_memory_bytes
from plimsoll_job.packages import engine_versions
from plimsoll_job.progress import Reporter
from plimsoll_job.publish.artifact import build_manifest, is_intact, publish_artifact
from plimsoll_job.room import check_room
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.left import Held, held_by_layer, left_in_module, why_left
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.techniques.table import REDUCING, TECHNIQUES, technique_of
from plimsoll_job.work import Done, Work

#: A training step takes about as long as this many others, for the progress that people see.
TRAINING_SHARE = 4
UNPROVED = (
    "That the artifacts answer as the model as given does was seen on random numbers only, since the job names neither "
    "calibration nor training data: for real samples it stands unproved. Name calibration data, without labels."
)
#: Publishes a model with the records of the steps that made it.
Publish = Callable[[Candidate, list[StepRecord]], ArtifactRef]


def compress(plan: Plan, store: Store, reporter: Reporter) -> Summary:
    """Carry out the plan and return its summary; the same plan on the same machine gives the same artifacts."""
    make_deterministic()
    keep_tensors_apart()
    loaded = load_plan(plan, store, reporter.part(0, 0.05))
    work = Work(work_directory(plan, store), loaded.signature)
    work.drop_unless_of(loaded.digests)
    done = work.finished()
    if done is None or not (is_intact(done.baseline, store) and is_intact(done.candidate, store)):
        check_quantization(plan, loaded)
        if not work.begun():
            check_room(plan, loaded.weights_bytes, work.directory)
        work.begin(loaded.digests)
        baseline = publish_baseline(plan, loaded, store, reporter.part(0.05, 0.1))
        publish = publishing(plan, loaded, baseline, store)
        candidate, records = take_steps(plan, loaded, work, publish, reporter.part(0.1, 0.9))
        reporter.report("export", 0.9)
        publish = publishing(plan, loaded, baseline, store, plan.output.formats)
        done = Done(baseline=baseline, candidate=publish(candidate, records))
        reporter.report("publish", 1, done.candidate.digest)
        work.finish(done)
    return Summary(
        outcome=Outcome.DONE,
        reason="Compressed",
        message=f"{done.baseline.size_bytes} bytes became {done.candidate.size_bytes}",
        baseline=done.baseline,
        candidate=done.candidate,
    )


def work_directory(plan: Plan, store: Store) -> Path:
    """Return where the plan's finished work is kept."""
    return store.locate(plan.output.uri, "spec.output.uri") / "work" / plan.content_digest().replace(":", "-")


def make_deterministic() -> None:
    """Make torch choose the same arithmetic every time; slower kernels are the price."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same as use_deterministic_algorithms, which also imports the compiler: five seconds. A GPU lacks some kernels
    # in a deterministic form: training then warns, and the step's record says so.
    torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def check_quantization(plan: Plan, loaded: Loaded) -> None:
    """UserError, before any work, when the last step cannot be taken here."""
    for index, step in enumerate(plan.steps):
        if step.quantize is not None:
            quantize.check(step.quantize, loaded.source.layers(), f"spec.steps[{index}].quantize")


def publish_baseline(plan: Plan, loaded: Loaded, store: Store, reporter: Reporter) -> ArtifactRef:
    """Export and publish the model as given: the candidate is compared with it, a release falls back to it."""
    reporter.report("analyse", 0, "exports the baseline")
    give_back()
    module = loaded.source.module
    lineage = Lineage(
        source_digest=loaded.source.digest,
        architecture=loaded.source.architecture,
        packages=engine_versions([plan.model.architecture]),
    )
    exported = boundary("spec.model.architecture", "the model cannot be exported", reason="NotExportable")
    with exported, tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        notes = write_outputs(
            Candidate(module), loaded.source, loaded.signature, plan.task, formats=[OutputFormat.ONNX], directory=files
        )
        lineage = _compared(lineage, loaded.signature, notes)
        manifest = build_manifest(files, count(module, loaded.signature, files / MODEL_FILE), lineage, loaded.classes)
        macs = (
            f"{manifest.macs} multiply-accumulates a sample" if manifest.macs_unknown is None else manifest.macs_unknown
        )
        reporter.report("analyse", 1, f"{manifest.parameters} parameters, {macs}")
        return publish_artifact(manifest, files, plan.output.uri, store)


def take_steps(
    plan: Plan, loaded: Loaded, work: Work, publish: Publish, reporter: Reporter
) -> tuple[Candidate, list[StepRecord]]:
    """Take the steps that are not finished yet, keeping the candidate after each.

    What the model is after each step but the last is published too: the evaluation measures what each step did.
    """
    finished, candidate, records = work.resume(len(plan.steps), loaded.source)
    shares = [TRAINING_SHARE if step.trains else 1 for step in plan.steps]
    for index in range(finished, len(plan.steps)):
        part = reporter.part(sum(shares[:index]) / sum(shares), sum(shares[: index + 1]) / sum(shares))
        candidate, record = take_step(
            plan, index, loaded, candidate, checkpoints=work.checkpoints(index), reporter=part
        )
        if index < len(plan.steps) - 1:
            digest = publish(candidate, [*records, record]).digest
            record = record.model_copy(update={"artifact_digest": digest})
        records = [*records, record]
        work.save(index, candidate, records)
        # The pod may be killed, and the next one begins after this step.
        work.keep_peak_memory(peak_memory_bytes())
    return candidate, records


def take_step(
    plan: Plan, index: int, loaded: Loaded, candidate: Candidate, *, checkpoints: Checkpoints, reporter: Reporter
) -> tuple[Candidate, StepRecord]:
    """Take one step; UserError when it changed nothing."""
    step = plan.steps[index]
    technique = technique_of(step)
    settings = getattr(step, technique)
    bench = bench_of(plan, index, loaded, checkpoints, reporter)
    bench = replace(bench, announce=partial(bench.ranks.announce, index))
    reporter.report(technique, 0)
    untaken = (
        "the step cannot be taken on this model; leave the step out, or give a model without what it stumbles over"
    )
    fingerprint, before = candidate.fingerprint(), figures_of(candidate, loaded)
    held = held_by_layer(candidate.module)
    # A prune step announces each training between its iterations itself.
    if step.trains and step.prune is None:
        bench.announce()
    give_back()
    with boundary(bench.spec_field, untaken):
        applied = TECHNIQUES[technique](settings, candidate, bench)
        give_back()
        after = figures_of(applied.candidate, loaded)
    if applied.candidate.fingerprint() == fingerprint and not applied.may_stay:
        raise UserError(
            f"{bench.spec_field}: the step changed nothing; leave it out or ask for more", reason="NothingChanged"
        )
    return applied.candidate, StepRecord(
        technique=technique,
        settings=settings.to_wire(),
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        nonzero_after=after.nonzero,
        macs_before=before.macs,
        macs_after=after.macs,
        details=dict(applied.details),
        left=left_by(technique, held, applied),
        notes=list(applied.notes),
    )


def left_by(technique: str, before: Mapping[str, Held], applied: Applied) -> list[Leftover]:
    """Return what the step left as it was, the largest first; of a graph the technique has compared it itself."""
    if technique not in REDUCING or applied.candidate.graph is not None or applied.may_stay:
        return list(applied.left)
    after = held_by_layer(applied.candidate.module)
    return left_in_module(before, after, applied.left, applied.reached, partial(why_left, technique))


def bench_of(plan: Plan, index: int, loaded: Loaded, checkpoints: Checkpoints, reporter: Reporter) -> Bench:
    """Return what the technique of the step may use."""
    step = plan.steps[index]
    spec_field = f"spec.steps[{index}].{technique_of(step)}"
    teacher = step.distill.teacher if step.distill else None
    return Bench(
        source=loaded.source,
        steps_before=index,
        task=plan.task,
        signature=loaded.signature,
        train=loaded.train,
        calibration=loaded.calibration,
        seed=plan.seed * 1_000 + index,
        spec_field=spec_field,
        reporter=reporter,
        checkpoints=checkpoints,
        load_teacher=None
        if teacher is None
        else partial(
            load_teacher,
            teacher,
            loaded.store,
            f"{spec_field}.teacher",
            task=plan.task,
            allow_code=plan.allow_code_execution,
        ),
    )


def figures_of(candidate: Candidate, loaded: Loaded, graph: Path | None = None) -> ModuleFigures:
    """Return the candidate's counts, of the file of its graph where there is one.

    Weights that its number format rounded to zero are zero.
    """
    written = graph or (candidate.graph.path if candidate.graph else None)
    figures = count(candidate.module, loaded.signature, written)
    return replace(figures, nonzero=min(figures.nonzero, figures.parameters - candidate.zero_weights))


def publishing(
    plan: Plan,
    loaded: Loaded,
    baseline: ArtifactRef,
    store: Store,
    formats: Sequence[OutputFormat] = (OutputFormat.ONNX,),
) -> Publish:
    """Return what writes the model that the steps made in these formats, checks each, and publishes them."""

    def publish(candidate: Candidate, records: list[StepRecord]) -> ArtifactRef:
        give_back()
        lineage = Lineage(
            plan_digest=plan.content_digest(),
            source_digest=loaded.source.digest,
            architecture=loaded.source.architecture,
            baseline_digest=baseline.digest,
            steps=records,
            packages=engine_versions(plan.architectures()),
        )
        written = boundary("spec.output.formats", "what the steps made cannot be written", reason="NotExportable")
        with written, tempfile.TemporaryDirectory() as directory:
            files = Path(directory)
            notes = write_outputs(
                candidate, loaded.source, loaded.signature, plan.task, formats=formats, directory=files
            )
            compared = _compared(lineage, loaded.signature, notes)
            manifest = build_manifest(files, figures_of(candidate, loaded, files / MODEL_FILE), compared)
            return publish_artifact(manifest, files, plan.output.uri, store)

    return publish


def _compared(lineage: Lineage, signature: Signature, notes: Sequence[str]) -> Lineage:
    """Return the lineage with what the outputs were compared on, and what a person should know of it."""
    compared = samples_in(signature)
    return lineage.model_copy(update={"compared": compared, "notes": [*notes, *([] if compared else [UNPROVED])]})
