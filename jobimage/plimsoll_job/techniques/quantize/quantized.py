"""One scheme applied to one float model: the graph, what each layer got and why, and how near its answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Compute, Exclusion, QuantizeScheme
from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.scratch import HeldFile
from plimsoll_job.techniques.left import left_in_graph
from plimsoll_job.techniques.quantize.fidelity import Fidelity, compare
from plimsoll_job.techniques.quantize.fit.fitted import Fitting
from plimsoll_job.techniques.quantize.fit.method import NEAREST, Method
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import (
    FLOAT,
    Layer,
    count_zero_weights,
    input_ranges,
    is_within,
    stored_types,
)
from plimsoll_job.techniques.quantize.schemes import SCHEMES, Scheme, scheme_of
from plimsoll_job.techniques.quantize.sensitivity import Chosen, choose_layers
from plimsoll_job.techniques.quantize.start import Start, answers_in, served_answers, write
from plimsoll_job.techniques.record import six_digits


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


def quantize(
    name: QuantizeScheme,
    start: Start,
    exclude: Exclusion | None,
    spec_field: str,
    *,
    compute: Compute | None = None,
    weight_bits: int | None = None,
    method: Method = NEAREST,
) -> Quantized:
    """Return the model in the scheme's format; UserError when no layer gets it, or when that gains nothing."""
    scheme = scheme_of(name, compute, weight_bits)
    model = start.model.keeping(exclude.layers if exclude else ())
    able, kept = able_layers(name, model, exclude, spec_field)
    fitting = Fitting(
        name=name,
        scheme=scheme,
        model=model,
        layers=able,
        calibration=start.calibration,
        observed=start.observed,
        ranges=start.ranges,
    )
    fitted = fitting.fit(method)
    model = fitted.model
    limit = exclude.max_error if exclude else None
    measure = _measure(scheme, fitted.make, start)
    chosen = Chosen(fitted.layers, {}) if limit is None else choose_layers(fitted.layers, measure, limit.value)
    if chosen is None:
        raise UserError(
            f"{spec_field}.exclude.maxError: {limit} cannot be kept: each layer alone costs more in {name}",
            reason="NotQuantizable",
        )
    taken = {layer.node for layer in chosen.layers}
    kept |= {layer.node: f"kept for exclude.maxError of {limit}" for layer in able if layer.node not in taken}
    quantized = fitted.make(chosen.layers)
    left = left_in_graph(model.lean(), quantized, *_told_of_layers(model, kept), f"{name} leaves it in float")
    types, inputs = stored_types(quantized, model.layers), input_ranges(quantized, chosen.layers)
    if all(types[node] == FLOAT for node in taken):
        raise UserError(f"{spec_field}: every layer kept float weights", reason="NotQuantizable")
    zero_weights = count_zero_weights(quantized, chosen.layers)
    graph = write(quantized)
    if graph.size_bytes >= start.size_bytes:
        raise UserError(
            f"{spec_field}: the model has {graph.size_bytes} bytes in {name}, {start.size_bytes} in float32: it is too "
            "small for quantization to pay; leave the step out",
            reason="NotSmaller",
        )
    fidelity = None
    if start.calibration is not None and start.expected is not None:
        fidelity = compare(start.expected, served_answers(graph, scheme, start.calibration))
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
            **fitted.to_details(),
            **fitted.padding.to_details(),
            "weightTypes": dict(sorted(Counter(types.values()).items())),
            "layers": [
                _record(layer, types[layer.node], kept, chosen.alone)
                | _range("inputRange", inputs.get(layer.node))
                | _range("calibratedRange", start.calibrated.get(layer.node) if layer.node in taken else None)
                for layer in model.layers
            ],
        },
        notes=(
            *_notes(scheme, model, types, exclude.layers if exclude else []),
            *fitted.notes(),
            *fitted.padding.notes(),
        ),
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


def _measure(
    scheme: Scheme, make: Callable[[Collection[Layer]], LeanModel], start: Start
) -> Callable[[Collection[Layer]], float]:
    """Return what measures the error of the answers when these layers are quantized."""

    def error_of(layers: Collection[Layer]) -> float:
        assert start.calibration is not None and start.expected is not None  # noqa: S101, PT018 — the step asked for it
        return compare(start.expected, answers_in(write(make(layers)), scheme, start.calibration)).error

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
