"""Which steps a job may have, how often, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plimsoll_api.rules import Rule
from plimsoll_api.steps import Granularity, PruneCriterion, Step


def _takes_a_graph(step: Step) -> bool:
    return step.quantize is not None and not step.trains


def _factorizes(step: Step) -> bool:
    return step.factorize is not None


def _refits(step: Step) -> bool:
    return step.prune is not None and step.prune.criterion == PruneCriterion.REDUNDANCY


def _follows_zeros(steps: Sequence[Step], told: Callable[[Step], bool]) -> bool:
    """Tell whether a step of which this is told follows one that set single weights to zero."""
    sparse = False
    for step in steps:
        sparse |= step.prune is not None and step.prune.granularity != Granularity.STRUCTURED
        if sparse and told(step):
            return True
    return False


def _breaks_pattern(steps: Sequence[Step]) -> bool:
    """Tell whether a structured prune follows one that left N of M."""
    kinds = [step.prune.granularity for step in steps if step.prune is not None]
    return Granularity.N_OF_M in kinds and Granularity.STRUCTURED in kinds[kinds.index(Granularity.N_OF_M) :]


def _at_most_one(technique: str, why: str = "") -> Rule:
    return Rule(
        cel=f"self.steps.filter(s, has(s.{technique})).size() <= 1",
        holds=lambda spec: sum(getattr(step, technique) is not None for step in spec.steps) <= 1,
        message=f"must hold at most one {technique} step{why}",
        field="steps",
    )


_CEL_FIRST_SPARSE = "self.steps.map(s, has(s.prune) && s.prune.granularity != 'Structured').indexOf(true)"
_CEL_FIRST_PATTERN = "self.steps.map(s, has(s.prune) && s.prune.granularity == 'NofM').indexOf(true)"
_CEL_STRUCTURED = "self.steps.map(s, has(s.prune) && s.prune.granularity == 'Structured').lastIndexOf(true)"
_CEL_FACTORIZE = "self.steps.map(s, has(s.factorize)).lastIndexOf(true)"
_CEL_REDUNDANCY = "self.steps.map(s, has(s.prune) && s.prune.criterion == 'Redundancy').lastIndexOf(true)"

#: For a whole job.
ORDER_RULES = (
    Rule(
        cel="!has(self.model.architecture.onnx) || self.steps.all(s, has(s.quantize) && "
        "s.quantize.scheme != 'Int8QAT')",
        holds=lambda spec: spec.model.architecture.onnx is None or all(map(_takes_a_graph, spec.steps)),
        message="an ONNX model can be quantized without training, and nothing else: prune, factorize, distill and "
        "Int8QAT need the module that it was exported from",
        field="steps",
    ),
    Rule(
        cel="self.steps.filter(s, has(s.distill) && has(s.distill.student)).size() <= "
        "(has(self.steps[0].distill) && has(self.steps[0].distill.student) ? 1 : 0)",
        holds=lambda spec: not any(step.distill and step.distill.student for step in spec.steps[1:]),
        message="a distill step with a student must be the first: the student takes the place of the model, and "
        "what steps before it did would be lost",
        field="steps",
    ),
    _at_most_one("quantize"),
    Rule(
        cel="!self.steps.exists(s, has(s.quantize)) || has(self.steps[size(self.steps) - 1].quantize)",
        holds=lambda spec: not any(step.quantize for step in spec.steps) or spec.steps[-1].quantize is not None,
        message="quantize must be the last step: integer weights can neither be pruned nor factorized nor trained "
        "any more",
        field="steps",
    ),
    _at_most_one("factorize", ": factors are not factorized again"),
    Rule(
        cel=f"{_CEL_FIRST_SPARSE} < 0 || {_CEL_FACTORIZE} < {_CEL_FIRST_SPARSE}",
        holds=lambda spec: not _follows_zeros(spec.steps, _factorizes),
        message="factorize must not follow prune with granularity Unstructured or NofM: products of factors are "
        "dense, so the zeros would be lost",
        field="steps",
    ),
    Rule(
        cel=f"{_CEL_FIRST_SPARSE} < 0 || {_CEL_REDUNDANCY} < {_CEL_FIRST_SPARSE}",
        holds=lambda spec: not _follows_zeros(spec.steps, _refits),
        message="prune with criterion Redundancy must not follow one with granularity Unstructured or NofM: refitted "
        "weights are dense, so the zeros would be lost; let Redundancy come first",
        field="steps",
    ),
    Rule(
        cel=f"{_CEL_FIRST_PATTERN} < 0 || {_CEL_STRUCTURED} < {_CEL_FIRST_PATTERN}",
        holds=lambda spec: not _breaks_pattern(spec.steps),
        message="prune with granularity Structured must not follow one with NofM: where channels go, the weights "
        "that are left no longer keep the pattern",
        field="steps",
    ),
)
