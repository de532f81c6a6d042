"""All that a plan names is read, and checked to fit together, before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_api.artifact import ClassNames
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.plan import Plan
from plimsoll_api.sources import OutputFormat
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.boundary import boundary
from plimsoll_job.cores import thread_count
from plimsoll_job.errors import UserError
from plimsoll_job.export.onnx_export import MAX_WEIGHTS_BYTES
from plimsoll_job.figures import count_macs, weights_bytes
from plimsoll_job.load.classes import check_classes_of, class_names
from plimsoll_job.load.data import Samples, read_samples, taken_by
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.labels import READ_LABELS
from plimsoll_job.load.model import SourceModel, load_model
from plimsoll_job.load.roles import build_student, check_answers, load_teacher
from plimsoll_job.load.sentences import Sentences
from plimsoll_job.load.signature import input_names, signature_of
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter

#: Samples of a batch of no certain size, to choose the number of threads by.
TYPICAL_BATCH = 64


@dataclass(frozen=True)
class Loaded:
    """All that a plan names, read and checked."""

    source: SourceModel
    train: Samples | None
    calibration: Samples | None
    signature: Signature
    #: Of the model as given, or of the student that takes its place where that is larger.
    weights_bytes: int
    #: What tells the contents of all that was read, by its field: what lies at a path may change.
    digests: Mapping[str, str]
    store: Store
    #: What the model's outputs are called, where that is known.
    classes: ClassNames | None = None


def load_plan(plan: Plan, store: Store, reporter: Reporter) -> Loaded:
    """Read the model and the data that the plan names, and check that they fit each other."""
    reporter.report("load", 0, plan.model.uri)
    source = load_model(plan.model, store, plan.task, allow_code=plan.allow_code_execution)
    check_fits(source.module, "spec.model.uri")
    check_formats(plan, source)
    # A setting that is not known is refused before any work, also where no text is read here.
    Sentences.of(source.files)
    needs_labels = any(loss.labels for step in plan.steps if step.distill for loss in step.distill.losses)
    train = calibration = None
    if plan.train:
        read_labels = READ_LABELS[plan.task] if needs_labels else None
        train = read_samples(plan.train, store, "spec.data.train", read_labels, files=source.files)
    if plan.calibration:
        calibration = read_samples(plan.calibration, store, "spec.data.calibration", None, files=source.files)
        wanted = plan.calibration.samples
        if wanted is not None and wanted > len(calibration):
            raise UserError(
                f"spec.data.calibration.samples: {wanted} are wanted, {plan.calibration.uri} has {len(calibration)}"
            )
        calibration = calibration.draw(wanted or len(calibration), plan.seed)
    module = source.module
    names = input_names(module, (train, calibration))
    train, calibration = (None if read is None else taken_by(read, names) for read in (train, calibration))
    signature = signature_of(
        module, {"spec.data.calibration.inputs": calibration, "spec.data.train.inputs": train}, plan.task
    )
    with boundary("spec.model.architecture", "its operations cannot be counted"):
        torch.set_num_threads(thread_count(count_macs(module, signature).total, TYPICAL_BATCH))
    digests = {"spec.model": source.digest, "spec.model.files": digest_of_files(source.files)}
    digests |= {
        f"spec.data.{use}": read.digest for use, read in (("train", train), ("calibration", calibration)) if read
    }
    digests |= check_teachers(plan, store, module, signature)
    largest = max([weights_bytes(module), *check_students(plan, module, signature)])
    samples = {"training": train, "calibration": calibration}
    told = ", ".join(f"{len(found)} {use} samples" for use, found in samples.items() if found)
    reporter.report("load", 1, told or "no samples: outputs are compared with the model on random numbers only")
    classes = check_names(plan, source, train, calibration, signature)
    return Loaded(source, train, calibration, signature, largest, digests, store, classes)


def check_names(
    plan: Plan, source: SourceModel, train: Samples | None, calibration: Samples | None, signature: Signature
) -> ClassNames | None:
    """Return the names of the classes, None where there are none; UserError when labels to learn from have others."""
    if plan.task not in CLASSIFICATION:
        return None
    with torch.no_grad():
        outputs = source.module(*example_of(signature)).shape[-1]
    if plan.train is not None and train is not None and train.labels is not None:
        own = class_names([], source.directory, outputs, source.classes)
        check_classes_of(train, plan.train, outputs, "spec.data.train", own)
    return class_names(
        [(plan.train, train), (plan.calibration, calibration)], source.directory, outputs, source.classes
    )


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """Return the digest of small files, by their names."""
    return digest_of(canonical_json({name: digest_of(content) for name, content in files.items()}))


def check_teachers(plan: Plan, store: Store, module: nn.Module, signature: Signature) -> dict[str, str]:
    """Return the digest of each teacher that a step names; UserError when one does not answer as the module does."""
    digests = {}
    for index, step in enumerate(plan.steps):
        if step.distill and step.distill.teacher:
            spec_field = f"spec.steps[{index}].distill.teacher"
            teacher = load_teacher(
                step.distill.teacher, store, spec_field, task=plan.task, allow_code=plan.allow_code_execution
            )
            check_answers(teacher.take(), module, signature, spec_field)
            digests[spec_field] = teacher.digest
    return digests


def check_students(plan: Plan, module: nn.Module, signature: Signature) -> Iterator[int]:
    """Yield the bytes of weights of each student that a step names; UserError when one cannot take its place."""
    for index, step in enumerate(plan.steps):
        if step.distill and step.distill.student:
            spec_field = f"spec.steps[{index}].distill.student"
            student = build_student(step.distill.student, plan.seed, spec_field)
            check_answers(student, module, signature, spec_field)
            check_fits(student, spec_field)
            yield weights_bytes(student)


def check_fits(module: nn.Module, spec_field: str) -> None:
    """UserError when the module's weights are more than a file of ONNX holds."""
    if (given := weights_bytes(module)) > MAX_WEIGHTS_BYTES:
        raise UserError(
            f"{spec_field}: the model has {given} bytes of weights, an ONNX file holds at most {MAX_WEIGHTS_BYTES}; "
            "name a smaller model",
            reason="TooLarge",
        )


def check_formats(plan: Plan, source: SourceModel) -> None:
    """UserError, before any work, when an output could not be loaded without code that came with the model."""
    if source.has_code and OutputFormat.HUGGING_FACE in plan.output.formats:
        raise UserError(
            "spec.output.formats: HuggingFace is not written of a model that brings its own code: whoever loads "
            "it would have to run that, too; use TorchExport"
        )
