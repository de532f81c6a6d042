"""One scheme applied to one float model: the graph, what each layer got and why, and how near its answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Compute, Exclusion, QuantizeScheme
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import strip
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.scratch import HeldFile, Scratch
from plimsoll_job.sessions import open_frugally, open_restoring, open_served, open_session, serving_gpu
from plimsoll_job.techniques.left import left_in_graph
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.fidelity import Answers, Fidelity, answers, compare
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.int8_static import activations
from plimsoll_job.techniques.quantize.layers import (
    FLOAT,
    Layer,
    count_zero_weights,
    input_ranges,
    is_within,
    stored_types,
)
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph
from plimsoll_job.techniques.quantize.schemes import SCHEMES, Scheme, scheme_of
from plimsoll_job.techniques.quantize.sensitivity import Chosen, choose_layers
from plimsoll_job.techniques.record import six_digits

#: Sensitivity compares answers and nothing else: one thread gives the same ones every time.
THREADS = 1


@dataclass(frozen=True)
class Start:
    """What every scheme starts from: the model, its slim file, its answers to the calibration data if there is any."""

    model: FloatModel
    graph: Path
    calibration: Samples | None
    expected: Answers | None
    #: The ranges of activations where they were learned, and those of each layer's input that they were learned from.
    ranges: bytes | None = None
    calibrated: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The bytes of the slim file."""
        return self.graph.stat().st_size

    @classmethod
    def of(cls, model: FloatModel, calibration: Samples | None) -> Start:
        """Return the start, with the answers of the float model."""
        graph = model.scratch.path / "slim.onnx"
        slim_model = model.lean()
        strip(slim_model)
        slim_model.write(graph)
        give_back()
        expected = None if calibration is None else answers(open_frugally(graph), calibration)
        if expected is not None:
            check_finite(expected)
        return cls(model, graph, calibration, expected)


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and its record."""

    scheme: QuantizeScheme
    graph: HeldFile
    zero_weights: int
    fidelity: Fidelity | None
    details: Mapping[str, Any]
    notes: tuple[str, ...]
    left: tuple[Leftover, ...]


def check_finite(expected: Answers) -> None:
    """UserError where the float model's own answers to the calibration data are not finite: nor would its ranges be."""
    # Of tokens, those of the padding may be anything.
    wrong = 0 if expected.ndim > 2 else int((~np.isfinite(expected).reshape(len(expected), -1).all(axis=1)).sum())
    if wrong:
        raise UserError(
            f"spec.data.calibration: the model answers {wrong} of its {len(expected)} samples with NaN or infinity "
            f"before it is quantized; {'look at its weights' if wrong == len(expected) else 'leave such samples out'}",
            reason="AnswersNotFinite",
        )


def quantize(
    name: QuantizeScheme,
    start: Start,
    exclude: Exclusion | None,
    spec_field: str,
    *,
    compute: Compute | None = None,
    weight_bits: int | None = None,
) -> Quantized:
    """Return the model in the scheme's format; UserError when no layer gets it, or when that gains nothing."""
    scheme = scheme_of(name, compute, weight_bits)
    model = start.model.keeping(exclude.layers if exclude else ())
    able, kept = able_layers(name, model, exclude, spec_field)
    ranges = start.ranges
    if ranges is None and start.calibration is not None:
        ranges = scheme.observe(model, start.calibration)
    padding = Padding()
    if ranges is not None and start.calibration is not None:
        names = activations(model.lean().proto, model.layers)
        padding = find_padding_in_graph(model, names, start.calibration)

    def make(layers: Collection[Layer]) -> LeanModel:
        give_back()
        return scheme.convert(model, layers, ranges)

    limit = exclude.max_error if exclude else None
    chosen = Chosen(able, {}) if limit is None else choose_layers(able, _measure(scheme, make, start), limit.value)
    if chosen is None:
        raise UserError(
            f"{spec_field}.exclude.maxError: {limit} cannot be kept: each layer alone costs more in {name}",
            reason="NotQuantizable",
        )
    taken = {layer.node for layer in chosen.layers}
    kept |= {layer.node: f"kept for exclude.maxError of {limit}" for layer in able if layer.node not in taken}
    quantized = make(chosen.layers)
    left = left_in_graph(model.lean(), quantized, *_told_of_layers(model, kept), f"{name} leaves it in float")
    types, inputs = stored_types(quantized, model.layers), input_ranges(quantized, chosen.layers)
    if all(types[node] == FLOAT for node in taken):
        raise UserError(f"{spec_field}: every layer kept float weights", reason="NotQuantizable")
    zero_weights = count_zero_weights(quantized, chosen.layers)
    graph = _write(quantized)
    if graph.size_bytes >= start.size_bytes:
        raise UserError(
            f"{spec_field}: the model has {graph.size_bytes} bytes in {name}, {start.size_bytes} in float32: it is too "
            "small for quantization to pay; leave the step out",
            reason="NotSmaller",
        )
    fidelity = None
    if start.calibration is not None and start.expected is not None:
        fidelity = compare(start.expected, _served_answers(graph, scheme, start.calibration))
        if not np.isfinite(fidelity.error):
            raise UserError(f"{spec_field}: answers in {name} are no finite numbers", reason="NotQuantizable")
    return Quantized(
        scheme=name,
        graph=graph,
        zero_weights=zero_weights,
        fidelity=fidelity,
        details={
            "scheme": str(name),
            "floatBytes": start.size_bytes,
            "bytes": graph.size_bytes,
            "computes": scheme.arithmetic,
            **({} if scheme.weight_bits is None else {"weightBits": scheme.weight_bits}),
            **({} if start.calibration is None else {"calibrationSamples": len(start.calibration)}),
            **({} if fidelity is None else {"fidelity": fidelity.to_details()}),
            **padding.to_details(),
            "weightTypes": dict(sorted(Counter(types.values()).items())),
            "layers": [
                _record(layer, types[layer.node], kept, chosen.alone)
                | _range("inputRange", inputs.get(layer.node))
                | _range("calibratedRange", start.calibrated.get(layer.node) if layer.node in taken else None)
                for layer in model.layers
            ],
        },
        notes=(*_notes(scheme, model, types, exclude.layers if exclude else []), *padding.notes()),
        left=tuple(left),
    )


def _told_of_layers(model: FloatModel, kept: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of the layers and why each stays float if it does, by their nodes."""
    refused = {layer.node: f"ONNX Runtime did not quantize this {layer.operator}" for layer in model.layers}
    return {layer.node: layer.name for layer in model.layers}, refused | dict(kept)


def able_layers(
    name: QuantizeScheme, model: FloatModel, exclude: Exclusion | None, spec_field: str
) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers that may get the scheme's format, and why the others stay float, by their nodes.

    UserError when there is none that may.
    """
    excluded = exclude.layers if exclude else []
    kept = {layer.node: why for layer in model.layers if (why := _why_kept(layer, name, SCHEMES[name], excluded))}
    able = [layer for layer in model.layers if layer.node not in kept]
    if not able:
        whys = "; ".join(sorted(set(kept.values()))) or "it has no layer with a weight"
        raise UserError(f"{spec_field}: no layer of the model gets {name}: {whys}", reason="NotQuantizable")
    return able, kept


def _write(model: LeanModel) -> HeldFile:
    """Write the model with nothing in it that no runtime reads; the model is changed."""
    strip(model)
    scratch = Scratch()
    written = HeldFile(scratch.path / "model.onnx", scratch)
    model.write(written.path)
    return written


def _served_answers(graph: HeldFile, scheme: Scheme, samples: Samples) -> Answers:
    if serving_gpu() is None:
        return _answers(graph, scheme, samples)
    return answers(open_served(graph.path, THREADS), samples)


def _answers(graph: HeldFile, scheme: Scheme, samples: Samples) -> Answers:
    give_back()
    if not scheme.of_integers:
        return answers(open_restoring(graph.path), samples)
    # What integers come to depends on kernels that take packed weights only.
    return answers(open_session(graph.path, THREADS), samples)


def _measure(
    scheme: Scheme, make: Callable[[Collection[Layer]], LeanModel], start: Start
) -> Callable[[Collection[Layer]], float]:
    """Return what measures the error of the answers when these layers are quantized."""
    assert start.calibration is not None and start.expected is not None  # noqa: S101, PT018 — the step asked for it
    calibration, expected = start.calibration, start.expected

    def error_of(layers: Collection[Layer]) -> float:
        return compare(expected, _answers(_write(make(layers)), scheme, calibration)).error

    return error_of


def _record(layer: Layer, dtype: str, kept: Mapping[str, str], alone: Mapping[str, float]) -> dict[str, Any]:
    why = kept.get(layer.node)
    if why is None:
        why = f"ONNX Runtime did not quantize this {layer.operator}" if dtype == FLOAT else "as ordered"
    sensitivity = {"sensitivity": six_digits(alone[layer.node])} if layer.node in alone else {}
    return {"layer": layer.name, "dtype": dtype, "why": why, **sensitivity}


def _range(name: str, ends: tuple[float, float] | None) -> dict[str, list[float]]:
    return {} if ends is None else {name: [six_digits(end) for end in ends]}


def _why_kept(layer: Layer, name: QuantizeScheme, scheme: Scheme, excluded: Collection[str]) -> str | None:
    """Return why the layer is not given to the scheme, None when it is."""
    if (why := scheme.why_kept(layer)) is not None:
        return f"{name} leaves {layer.operator} in float: {why}"
    module = next((module for module in excluded if is_within(layer, module)), None)
    return None if module is None else f"exclude.layers names {module}"


def _notes(scheme: Scheme, model: FloatModel, types: Mapping[str, str], excluded: Collection[str]) -> tuple[str, ...]:
    """Tell of names that keep nothing float, and of the layers that stay float though nobody named them."""
    idle = [
        name
        for name in excluded
        if not any(is_within(layer, name) for layer in model.layers)
        and not (scheme.between and model.keeping([name]).kept)
    ]
    stay = [
        layer.name
        for layer in model.layers
        if types[layer.node] == FLOAT and not any(is_within(layer, module) for module in excluded)
    ]
    shown = ", ".join(stay[:5]) + (f" and {len(stay) - 5} more" if len(stay) > 5 else "")
    return (
        *(
            f"exclude.layers names {name}, which has no weights that could be quantized: it changes nothing."
            for name in idle
        ),
        *((f"{len(stay)} of {len(model.layers)} layers stay float: {shown}.",) if stay else ()),
    )
