"""What the steps of a job need of its data, its model and its output."""

from __future__ import annotations

from typing import Any

from plimsoll_api.rules import Rule
from plimsoll_api.sources import ModelSource, OutputFormat
from plimsoll_api.steps import CEL_NEEDS_CALIBRATION, CEL_TRAINS, FactorizeMethod, Granularity, Step


def _needs_calibration(step: Step) -> bool:
    return (
        (step.quantize is not None and step.quantize.needs_calibration)
        or (step.prune is not None and step.prune.needs_calibration)
        or (step.factorize is not None and step.factorize.method == FactorizeMethod.ACTIVATION_SVD)
    )


def _changes_structure(step: Step) -> bool:
    return (
        step.factorize is not None
        or (step.prune is not None and step.prune.granularity == Granularity.STRUCTURED)
        or (step.distill is not None and step.distill.student is not None)
    )


def _models(spec: Any) -> list[ModelSource]:
    teachers = [step.distill.teacher for step in spec.steps if step.distill and step.distill.teacher]
    return [spec.model, *teachers]


def _is_directory(source: ModelSource) -> bool:
    return source.architecture.huggingface is not None


#: For a whole job.
REQUIREMENTS = (
    Rule(
        cel="self.output.formats == ['Onnx'] || !self.steps.exists(s, has(s.quantize))",
        holds=lambda spec: spec.output.formats == [OutputFormat.ONNX] or not any(step.quantize for step in spec.steps),
        message="must be Onnx alone with a quantize step: quantized weights exist in the ONNX graph only",
        field="output.formats",
    ),
    Rule(
        cel="!('HuggingFace' in self.output.formats) || has(self.model.architecture.huggingface)",
        holds=lambda spec: (
            OutputFormat.HUGGING_FACE not in spec.output.formats or spec.model.architecture.huggingface is not None
        ),
        message="HuggingFace is for models that came as a Hugging Face directory",
        field="output.formats",
    ),
    Rule(
        cel="!('HuggingFace' in self.output.formats) || !self.steps.exists(s, has(s.factorize) || (has(s.prune) && "
        "s.prune.granularity == 'Structured') || (has(s.distill) && has(s.distill.student)))",
        holds=lambda spec: (
            OutputFormat.HUGGING_FACE not in spec.output.formats or not any(map(_changes_structure, spec.steps))
        ),
        message="HuggingFace must not go with factorize, structured pruning or a student: config.json cannot "
        "tell layers of their shapes; use TorchExport",
        field="output.formats",
    ),
    Rule(
        cel=f"!self.steps.exists(s, {CEL_TRAINS}) || has(self.data.train)",
        holds=lambda spec: not any(step.trains for step in spec.steps) or spec.data.train is not None,
        message="is required by a distill step, by the recovery of a prune step and by quantize with scheme Int8QAT",
        field="data.train",
        reason="FieldValueRequired",
    ),
    Rule(
        cel=f"!self.steps.exists(s, ({CEL_NEEDS_CALIBRATION}) || "
        "(has(s.prune) && (s.prune.criterion != 'Magnitude' || s.prune.allocation == 'Sensitivity')) || "
        "(has(s.factorize) && s.factorize.method == 'ActivationSvd')) || has(self.data.calibration)",
        holds=lambda spec: not any(map(_needs_calibration, spec.steps)) or spec.data.calibration is not None,
        message="is required by prune with criterion Activation, Redundancy or Taylor or with allocation Sensitivity, "
        "by factorize with method ActivationSvd and by quantize with scheme Int8Static, Int8QAT or Auto, or with "
        "exclude.maxError, rounding Gptq, equalization SmoothQuant or bias Correct",
        field="data.calibration",
        reason="FieldValueRequired",
    ),
    Rule(
        cel="!self.allowCodeExecution || has(self.model.architecture.huggingface) || self.steps.exists(s, "
        "has(s.distill) && has(s.distill.teacher) && has(s.distill.teacher.architecture.huggingface))",
        holds=lambda spec: not spec.allow_code_execution or any(map(_is_directory, _models(spec))),
        message="goes with architecture huggingface only: no other model brings code",
        field="allowCodeExecution",
        reason="FieldValueForbidden",
    ),
)
