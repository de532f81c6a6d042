"""Int8QAT: weights and activation ranges are trained in the graph that Int8Static makes, then it is made of them.

What is trained is that very graph, with every rounding in its place, so that nothing changes when it is served. Where
that brings the answers no nearer to float, Int8Static's stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional

from plimsoll_api.spec import Distill, Quantize, QuantizeScheme, QuantizeTraining
from plimsoll_api.steps.quantize import SAFE_WEIGHT_BITS
from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.figures import count_macs
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_session
from plimsoll_job.techniques.distill.answers import Answers as Teaching
from plimsoll_job.techniques.distill.learner import Learner
from plimsoll_job.techniques.distill.lesson import lesson, tell_epochs, thin
from plimsoll_job.techniques.distill.recipe import family_of, recipe_of, told
from plimsoll_job.techniques.distill.teacher import Teacher
from plimsoll_job.techniques.distill.terms import Knowledge, Term
from plimsoll_job.techniques.distill.training import Training, TrainingSet
from plimsoll_job.techniques.observe import Batch, counted_answers
from plimsoll_job.techniques.quantize.fidelity import Answers, answers, compare, counted, spread
from plimsoll_job.techniques.quantize.fit.method import Method
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.int8_static import to_int8_static
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, Layer, input_ranges
from plimsoll_job.techniques.quantize.network import Network, unknown_operators
from plimsoll_job.techniques.quantize.ranges import Observed, write_ranges
from plimsoll_job.techniques.quantize.rounding import WEIGHTS_REACH
from plimsoll_job.techniques.quantize.start import THREADS, Start
from plimsoll_job.techniques.shape import Bench, Candidate

#: The float graph in torch may answer by so much otherwise than ONNX Runtime, of the largest answer.
TOLERANCE = 1e-3


class FidelityTerm(Term):
    """The square of the error that Fidelity tells: squared distance to the float answers, over how much they differ."""

    def __init__(self, expected: Answers) -> None:
        super().__init__()
        self.variance = spread(expected) ** 2

    def knowledge(self, teacher: Teaching) -> Knowledge:
        """Return the float answers."""
        return (teacher.output,)

    def forward(self, student: Teaching, knowledge: Knowledge, labels: torch.Tensor | None) -> torch.Tensor:
        """Return the squared error."""
        mask = None if student.mask is None else student.mask.bool().cpu().numpy()
        given, wanted = (counted_answers(one, mask) for one in (student.output, knowledge[0]))
        return functional.mse_loss(given, wanted) / self.variance


@dataclass(frozen=True)
class Learned:
    """The better start, of that given and that trained, the scheme it is by, and what is told of the training."""

    scheme: QuantizeScheme
    start: Start
    details: Mapping[str, Any]
    notes: tuple[str, ...]


def learn(settings: Quantize, start: Start, able: Sequence[Layer], candidate: Candidate, bench: Bench) -> Learned:
    """Return the start with its layers' weights, biases and ranges trained; UserError when that cannot be.

    The model learns to answer the training samples as it did in floats. Where its answers to the calibration samples
    get no nearer to those, the start stays as it is, for Int8Static.
    """
    calibration = bench.need_calibration()
    model = start.model.keeping(settings.exclude.layers if settings.exclude else ())
    training = Distill.model_validate((settings.training or QuantizeTraining()).to_wire())
    weight_bits = settings.weight_bits or SAFE_WEIGHT_BITS
    floats = model.lean()
    if unknown := unknown_operators(floats.proto):
        raise UserError(
            f"{bench.spec_field}.scheme: Int8QAT cannot train through {', '.join(unknown)}; use Int8Static",
            reason="NotTrainable",
        )
    assert start.expected is not None  # noqa: S101 — there is calibration data
    observed = Observed.of(model, calibration)
    table = observed.ranges(Method.of(settings, QuantizeScheme.INT8_QAT).ranges)
    quantized = to_int8_static(model, able, write_ranges(table), weight_bits)
    teacher = Network(floats)
    student = Network(quantized, _trained(floats, model.layers), table, weights_reach=WEIGHTS_REACH[weight_bits])
    _check(teacher, start.expected, calibration, bench.spec_field)
    samples = bench.need_train()
    inputs = _tensors(student, samples.inputs)
    family = family_of(candidate.module, bench.signature)
    recipe = recipe_of(training, family)
    macs = count_macs(candidate.module, bench.signature).total
    with lesson(
        macs, training.micro_batch_size or training.batch_size, f"{bench.spec_field}.training.learningRate"
    ) as notes:
        terms = {"logits": FidelityTerm(start.expected)}
        mask = None if samples.mask is None else torch.from_numpy(samples.mask)
        asked = Teacher(teacher, terms, inputs, samples.batch_size, bench.ranks.device)
        data = TrainingSet(inputs, asked, labels=None, mask=mask)
        del teacher
        course = Training(
            Learner(student, terms),
            data,
            training,
            recipe,
            seed=bench.seed,
            sparse=student.weight_names() if candidate.sparse else frozenset(),
            ranks=bench.ranks,
        ).run(tell_epochs(bench.reporter, "quantize", training.epochs), bench.checkpoints)
    student.cpu()
    ranges = write_ranges({**table, **student.learned_ranges()})
    learned = _with_weights(model, student.learned_weights())
    served = to_int8_static(learned, able, ranges, weight_bits)
    before, after, trained = (
        _answers(quantized, calibration),
        _answers(served, calibration),
        _ask(student, calibration),
    )
    held_out = {"heldOut": {"bestEpoch": course.best_epoch, "curve": thin(course.held_out)}} if course.held_out else {}
    fidelity_before, fidelity_after = compare(start.expected, before), compare(start.expected, after)
    if not np.isfinite(fidelity_after.error):
        raise UserError(
            f"{bench.spec_field}.training.learningRate: training diverged, answers of the trained model are no finite "
            "numbers; try a smaller one"
        )
    in_vain = fidelity_after.error >= fidelity_before.error
    if in_vain:
        notes.append(
            "The training brought the answers no nearer to float, and the model is that of Int8Static: their error is "
            f"{fidelity_before.error:.4g} by it, and was {fidelity_after.error:.4g} when trained."
        )
    return Learned(
        scheme=QuantizeScheme.INT8_STATIC if in_vain else QuantizeScheme.INT8_QAT,
        start=replace(start, observed=observed)
        if in_vain
        else replace(start, model=learned, observed=observed, ranges=ranges, calibrated=input_ranges(quantized, able)),
        details={
            "device": bench.ranks.device.type,
            "processes": bench.ranks.world,
            "samples": len(inputs[0]),
            "optimizer": told(recipe, family, training),
            "epochs": course.epochs,
            "loss": thin(course.curves["logits"]),
            **held_out,
            "fidelityBefore": fidelity_before.to_details(),
            "fidelityAfter": fidelity_after.to_details(),
            "servedToTrained": compare(trained, after).to_details(),
        },
        notes=tuple(notes),
    )


def _trained(floats: LeanModel, layers: Sequence[Layer]) -> dict[str, Numbers]:
    """Return the weights and biases of convolutions and linear layers."""
    constants = {constant.name: constant for constant in floats.proto.graph.initializer}
    chosen = {layer.node: layer for layer in layers if layer.operator in CONVOLUTIONS | LINEAR}
    names = {layer.weight for layer in chosen.values()}
    products = set()
    for node in floats.proto.graph.node:
        if node.name in chosen:
            names |= set(node.input[2:3])
            products |= set(node.output) if node.op_type == "MatMul" else set()
        elif node.op_type == "Add" and products & set(node.input):
            names |= {name for name in node.input if name in constants and len(constants[name].dims) == 1}
    return {name: floats.source(constants[name]) for name in names if name}


def _tensors(network: Network, inputs: Arrays) -> Batch:
    """Return the inputs as the network takes them."""
    return tuple(torch.from_numpy(inputs[name]) for name in network.inputs)


def _ask(network: Network, samples: Samples) -> Answers:
    """Return the network's answers to all samples, as `answers` does those of a session."""
    with torch.no_grad():
        answered = [counted(network(*_tensors(network, part.inputs)).numpy(), part.mask) for part in samples.parts()]
    return np.concatenate(answered).astype(np.float64)


def _answers(model: LeanModel, samples: Samples) -> Answers:
    scratch = Scratch()
    model.write(scratch.path / "model.onnx")
    return answers(open_session(scratch.path / "model.onnx", THREADS), samples)


def _check(network: Network, expected: Answers, samples: Samples, spec_field: str) -> None:
    """UserError when the float graph answers otherwise in torch than in ONNX Runtime: an operator means another."""
    difference = np.abs(_ask(network, samples) - expected).max() / max(
        np.finfo(np.float32).tiny, np.abs(expected).max()
    )
    if not difference <= TOLERANCE:
        raise UserError(
            f"{spec_field}.scheme: Int8QAT computes the model otherwise than ONNX Runtime, by {difference:.3g} of the "
            "largest answer; use Int8Static",
            reason="NotTrainable",
        )


def _with_weights(model: FloatModel, learned: Mapping[str, NDArray[np.float32]]) -> FloatModel:
    floats = model.lean()
    for constant in floats.proto.graph.initializer:
        if constant.name in floats.numbers and constant.name in learned:
            floats.numbers[constant.name] = partial(np.asarray, learned[constant.name])
        elif constant.name in learned:
            constant.CopyFrom(numpy_helper.from_array(learned[constant.name], constant.name))
    return model.rewritten(floats)
