"""Quantization: layers in smaller number formats, and a table of which layer got which, and why."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import replace

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Quantize, QuantizeScheme
from plimsoll_job.errors import UserError
from plimsoll_job.techniques.quantize.auto import measure, smallest
from plimsoll_job.techniques.quantize.fit.method import Method
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.int8_qat import learn
from plimsoll_job.techniques.quantize.quantized import Quantized, able_layers, quantize
from plimsoll_job.techniques.quantize.schemes import scheme_of
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

CHOSEN_BY_TIME = (
    "Auto chose by times measured on this machine: another run of the same plan may choose otherwise, and has another "
    "manifest in any case."
)


def check(settings: Quantize, modules: Collection[str], spec_field: str) -> None:
    """UserError when the step cannot work on this machine, or names a module that the model lacks.

    It costs nothing, so that a job is told before hours of training and not after.
    """
    auto = settings.scheme == QuantizeScheme.AUTO
    missing = None if auto else scheme_of(settings.scheme, settings.compute, settings.weight_bits).missing()
    if missing is not None:
        raise UserError(f"{spec_field}.scheme: {settings.scheme} {missing}", reason="NotOnThisMachine")
    for index, name in enumerate(settings.exclude.layers if settings.exclude else ()):
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{spec_field}.exclude.layers[{index}]: the model has no module {name!r}{hint}")


def apply(settings: Quantize, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate as an ONNX graph in the scheme's number format; UserError when that gains nothing."""
    calibration = bench.need_calibration() if settings.needs_calibration else bench.calibration
    start = Start.of(float_model_of(candidate, bench.signature), calibration)
    if settings.scheme == QuantizeScheme.AUTO:
        return _choose(settings, start, candidate, bench)
    if settings.scheme == QuantizeScheme.INT8_QAT:
        return _trained(settings, start, candidate, bench)
    bench.reporter.report("quantize", 0.2, f"{len(start.model.layers)} layers by {settings.scheme}")
    quantized = quantize(
        settings.scheme,
        start,
        settings.exclude,
        bench.spec_field,
        compute=settings.compute,
        weight_bits=settings.weight_bits,
        method=Method.of(settings, settings.scheme),
    )
    bench.reporter.report("quantize", 1, f"{start.size_bytes} bytes became {quantized.graph.size_bytes}")
    return _applied(candidate, quantized, start)


def _trained(settings: Quantize, start: Start, candidate: Candidate, bench: Bench) -> Applied:
    able, _ = able_layers(settings.scheme, start.model, settings.exclude, bench.spec_field)
    learned = learn(settings, start, able, candidate, bench)
    quantized = quantize(
        learned.scheme,
        learned.start,
        settings.exclude,
        bench.spec_field,
        weight_bits=settings.weight_bits,
        method=Method.of(settings, settings.scheme),
    )
    applied = _applied(candidate, quantized, start)
    return replace(
        applied,
        details={**applied.details, "training": learned.details},
        notes=(*applied.notes, *learned.notes),
    )


def _applied(candidate: Candidate, quantized: Quantized, start: Start) -> Applied:
    return Applied(
        candidate=replace(
            candidate, graph=quantized.graph, zero_weights=quantized.zero_weights, notes=start.model.notes
        ),
        details=quantized.details,
        notes=quantized.notes,
        left=quantized.left,
    )


def _choose(settings: Quantize, start: Start, candidate: Candidate, bench: Bench) -> Applied:
    """Return the smallest of the schemes that keep the limits; the candidate as it is where none does.

    UserError when there is nothing to hand on then: no step before this one changed the model.
    """
    rows = measure(start, settings, bench)
    told = tuple(dict.fromkeys(note for row in rows for note in row.choice.notes))
    table = [row.to_details() for row in rows]
    chosen = smallest(rows)
    bench.reporter.report("quantize", 1, f"Auto chose {chosen.scheme if chosen else 'to stay float'}")
    if chosen is not None and chosen.quantized is not None:
        applied = _applied(candidate, chosen.quantized, start)
        return replace(
            applied, details={**applied.details, "table": table}, notes=(*applied.notes, *told, CHOSEN_BY_TIME)
        )
    reasons = "; ".join(f"{row.scheme}: {row.against}" for row in rows)
    if bench.steps_before == 0:
        raise UserError(f"{bench.spec_field}: no number format pays on this machine: {reasons}", reason="NothingPays")
    why = f"No number format pays on this machine, the model stays float: {reasons}."
    return Applied(
        candidate=candidate,
        details={"scheme": "Float32", "floatBytes": start.size_bytes, "bytes": start.size_bytes, "table": table},
        notes=(why, *told, CHOSEN_BY_TIME),
        left=(Leftover(layer="the model", kind="model", share=1, reason=why),),
        may_stay=True,
    )
