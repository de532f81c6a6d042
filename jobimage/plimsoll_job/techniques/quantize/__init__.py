"""Quantization: layers in smaller number formats, and a table of which layer got which, and why."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from plimsoll_api.spec import Quantize, QuantizeScheme
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import slim
from plimsoll_job.techniques.quantize.float_model import FloatModel, float_model_of
from plimsoll_job.techniques.quantize.layers import FLOAT, Layer, count_zero_weights, is_within, stored_types
from plimsoll_job.techniques.quantize.schemes import SCHEMES, Scheme
from plimsoll_job.techniques.shape import Applied, Bench, Candidate


def check(settings: Quantize, modules: Collection[str], spec_field: str) -> None:
    """UserError when the step cannot work on this machine, or names a module that the model lacks.

    It costs nothing, so that a job is told before hours of training and not after.
    """
    missing = SCHEMES[settings.scheme].missing()
    if missing is not None:
        raise UserError(f"{spec_field}.scheme: {settings.scheme} {missing}", reason="NotOnThisMachine")
    for index, name in enumerate(settings.exclude.layers if settings.exclude else ()):
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{spec_field}.exclude.layers[{index}]: the model has no module {name!r}{hint}")


def apply(settings: Quantize, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate as an ONNX graph in the scheme's number format; UserError when that gains nothing."""
    scheme = SCHEMES[settings.scheme]
    calibration = bench.need_calibration() if settings.needs_calibration else None
    model = float_model_of(candidate, bench.signature)
    excluded = settings.exclude.layers if settings.exclude else []
    kept = {layer.node: why for layer in model.layers if (why := _why_kept(layer, settings.scheme, scheme, excluded))}
    chosen = [layer for layer in model.layers if layer.node not in kept]
    if not chosen:
        raise UserError(
            f"{bench.spec_field}: no layer of the model can be stored by {settings.scheme}: "
            f"{_join(sorted(set(kept.values()))) or 'it has no layer with a weight'}",
            reason="NotQuantizable",
        )
    bench.reporter.report("quantize", 0.2, f"{len(chosen)} of {len(model.layers)} layers")
    quantized = scheme.quantize(model, chosen, calibration)
    types = stored_types(quantized, model.layers)
    if not any(types[layer.node] != FLOAT for layer in chosen):
        raise UserError(f"{bench.spec_field}: every layer kept float weights", reason="NotQuantizable")
    graph = slim(quantized).SerializeToString(deterministic=True)
    float_bytes = len(slim(model.copy()).SerializeToString())
    if len(graph) >= float_bytes:
        raise UserError(
            f"{bench.spec_field}: the model has {len(graph)} bytes in {settings.scheme}, {float_bytes} in float32: "
            "it is too small for quantization to pay; leave the step out",
            reason="NotSmaller",
        )
    bench.reporter.report("quantize", 1, f"{float_bytes} bytes became {len(graph)}")
    return Applied(
        candidate=replace(candidate, graph=graph, zero_weights=count_zero_weights(quantized, chosen)),
        details={
            **({} if calibration is None else {"calibrationSamples": len(calibration)}),
            "floatBytes": float_bytes,
            "bytes": len(graph),
            "computes": scheme.computes,
            "weightTypes": dict(sorted(Counter(types.values()).items())),
            "layers": [
                {"layer": layer.name, "dtype": types[layer.node], "why": kept.get(layer.node) or _why(types, layer)}
                for layer in model.layers
            ],
        },
        notes=_notes(model, types, excluded),
    )


def _why_kept(layer: Layer, name: QuantizeScheme, scheme: Scheme, excluded: Iterable[str]) -> str | None:
    """Return why the layer is not given to the scheme, None when it is."""
    if not scheme.takes(layer):
        return f"{name} leaves {layer.operator} in float: {scheme.why_others_stay}"
    module = next((module for module in excluded if is_within(layer, module)), None)
    return None if module is None else f"exclude.layers names {module}"


def _why(types: dict[str, str], layer: Layer) -> str:
    if types[layer.node] != FLOAT:
        return "as ordered"
    return f"ONNX Runtime did not quantize this {layer.operator}"


def _notes(model: FloatModel, types: dict[str, str], excluded: Iterable[str]) -> tuple[str, ...]:
    """Tell of the layers that stay float though nobody asked for it."""
    stay = [
        layer.name
        for layer in model.layers
        if types[layer.node] == FLOAT and not any(is_within(layer, module) for module in excluded)
    ]
    return (f"{len(stay)} of {len(model.layers)} layers stay float: {_join(stay)}.",) if stay else ()


def _join(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
