"""Distillation: the compressed model learns to answer as a teacher does; also the recovery after pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from plimsoll_api.spec import Architecture, Distill
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_macs
from plimsoll_job.load.data import Samples, check_classes
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.roles import build_student
from plimsoll_job.techniques.distill.augment import check_images
from plimsoll_job.techniques.distill.learner import Learner, arithmetic_of
from plimsoll_job.techniques.distill.lesson import lesson, tell_epochs, thin
from plimsoll_job.techniques.distill.pairs import Couple
from plimsoll_job.techniques.distill.recipe import family_of, recipe_of, told
from plimsoll_job.techniques.distill.teacher import Teacher
from plimsoll_job.techniques.distill.terms import OutputKind, Term, terms_of
from plimsoll_job.techniques.distill.training import Course, Training, TrainingSet
from plimsoll_job.techniques.observe import Batches, tensors_of
from plimsoll_job.techniques.padding import Padding, find_padding_in_answers
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Fresh


def apply(settings: Distill, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate trained on what the teacher knows of the training samples; it is trained in place.

    The teacher is read for as long as it is asked.
    """
    samples = bench.need_train()
    device = bench.ranks.device
    if settings.augmentation is not None:
        check_images(bench.signature, bench.spec_field)
    if settings.student is not None:
        candidate.let_go()
        candidate = _fresh(settings.student, bench)
    source = bench.load_teacher() if bench.load_teacher else bench.source
    teacher_module, student = source.take(), candidate.module
    # Projections between layers are drawn by chance.
    torch.manual_seed(bench.seed)
    kind = OutputKind.of_task(bench.task)
    terms = terms_of(settings, Couple(teacher_module, student, bench.signature), kind, bench.spec_field)
    padding = _leave_out_padding(terms, teacher_module, samples, device)
    learner = Learner(student, terms, arithmetic_of(settings.precision, device))
    family = family_of(student, bench.signature)
    recipe = recipe_of(settings, family, fresh=settings.student is not None)
    labels = _labels(samples, candidate, kind, bench) if "labels" in terms else None

    macs = count_macs(candidate.module, bench.signature).total
    with lesson(macs, settings.micro_batch_size or settings.batch_size, f"{bench.spec_field}.learningRate") as notes:
        inputs = tensors_of(samples.inputs)
        remembers = settings.augmentation is None
        teacher = Teacher(teacher_module, terms, inputs, samples.batch_size, device, remembers=remembers)
        del teacher_module
        training = Training(
            learner,
            TrainingSet(inputs, teacher, labels, None if samples.mask is None else torch.from_numpy(samples.mask)),
            settings,
            recipe,
            seed=bench.seed,
            sparse=candidate.sparse,
            ranks=bench.ranks,
        )
        course = training.run(tell_epochs(bench.reporter, "distill", settings.epochs), bench.checkpoints)
    return Applied(
        candidate=replace(candidate, module=student.cpu()),
        details={
            "device": device.type,
            "processes": bench.ranks.world,
            "precision": "Mixed" if learner.mixed else "Float32",
            "samples": len(samples),
            "optimizer": told(recipe, family, settings),
            "teacher": {"asked": teacher.asked, "architecture": source.architecture, "digest": source.digest},
            **({} if settings.augmentation is None else {"augmentation": settings.augmentation.to_wire()}),
            **padding.to_details(),
            **_knowledge(settings, terms, course),
        },
        notes=(*notes, *padding.notes("answer")),
    )


def _fresh(architecture: Architecture, bench: Bench) -> Candidate:
    """Return the student with weights of its own."""
    return Candidate(build_student(architecture, bench.seed, f"{bench.spec_field}.student"), (Fresh(architecture),))


def _leave_out_padding(
    terms: Mapping[str, Term], teacher: nn.Module, samples: Samples, device: torch.device
) -> Padding:
    """Have the terms compare no padded tokens, and return where these are in what the teacher's layers answer."""
    pairs = [pair for term in terms.values() for pair in term.pairs]
    widths = {pair.teacher.name: pair.teacher.width_axis for pair in pairs}
    padding = find_padding_in_answers(teacher, widths, Batches.of(samples, device))
    for term in terms.values():
        term.padding = padding
    return padding


def _labels(samples: Samples, candidate: Candidate, kind: OutputKind, bench: Bench) -> torch.Tensor:
    if samples.labels is None:
        raise UserError(f"spec.data.train.labels: {bench.spec_field} needs labels")
    with torch.no_grad():
        outputs = candidate.module(*example_of(bench.signature)).shape[1:]
    if kind in (OutputKind.CLASSES, OutputKind.TOKENS):
        check_classes(samples.labels, outputs[-1], "spec.data.train.labels")
    elif math.prod(samples.labels.shape[1:]) != outputs.numel():
        raise UserError(
            f"spec.data.train.labels: a sample has {math.prod(samples.labels.shape[1:])} numbers, "
            f"the model answers with {outputs.numel()}"
        )
    return torch.from_numpy(samples.labels)


def _knowledge(settings: Distill, terms: Mapping[str, Term], course: Course) -> dict[str, Any]:
    """Return which knowledge was transferred and how: each loss with its weight, its layers and its curve."""
    shares = dict(zip(terms, settings.weights, strict=True))
    total = [
        sum(share * value for share, value in zip(shares.values(), values, strict=True))
        # A checkpoint keeps the curves in an order of its own.
        for values in zip(*(course.curves[kind] for kind in shares), strict=True)
    ]
    stopped = {"heldOut": {"bestEpoch": course.best_epoch, "curve": thin(course.held_out)}} if course.held_out else {}
    return {
        "epochs": course.epochs,
        "loss": thin(total),
        "losses": {
            kind: {"weight": round(shares[kind], 6), **term.to_wire(), "curve": thin(course.curves[kind])}
            for kind, term in terms.items()
        },
        **stopped,
    }
