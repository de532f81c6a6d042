"""Auto: the scheme is chosen by what was measured, of all that can run here, on the processor that this runs on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from plimsoll_api.report import RatioInterval
from plimsoll_api.spec import AutoChoice, Compute, Metric, Quantize, QuantizeScheme
from plimsoll_api.steps.quantize import FULL_WEIGHT_BITS, INT8, SAFE_WEIGHT_BITS
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.latency import ratio_intervals
from plimsoll_job.evaluate.processes import Timed, time_in_processes
from plimsoll_job.evaluate.timed import Graph
from plimsoll_job.load.data import Samples
from plimsoll_job.sessions import serving_gpu
from plimsoll_job.techniques.quantize.fidelity import Fidelity
from plimsoll_job.techniques.quantize.fit.search import Choice, choose_method
from plimsoll_job.techniques.quantize.quantized import Quantized, quantize
from plimsoll_job.techniques.quantize.schemes import SCHEMES, Scheme, scheme_of
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Bench

#: An interval that reaches down to 1 and ends below this is that of a format as fast as float, in a noisy place.
NOT_SLOWER = 1.05


@dataclass(frozen=True)
class Row:
    """What was measured of one scheme, and why it is not taken; without figures where it could not be made."""

    scheme: QuantizeScheme
    computes: str = ""
    size_bytes: int = 0
    fidelity: Fidelity | None = None
    latency: tuple[RatioInterval, ...] = ()
    against: str = ""
    quantized: Quantized | None = None
    weight_bits: int | None = None
    #: What its method was chosen from, where that was for this row.
    choice: Choice = field(default_factory=Choice)
    #: Whether its answers were too far from the float model's.
    too_far: bool = False

    def to_details(self) -> dict[str, Any]:
        """Return the row for the record."""
        figures: dict[str, Any] = {}
        if self.fidelity is not None:
            figures = {"computes": self.computes, "bytes": self.size_bytes, **self.fidelity.to_details()}
            figures["latencyP50"] = [
                {"batchSize": one.batch_size, **{k: round(getattr(one, k), 4) for k in ("ratio", "low", "high")}}
                for one in self.latency
            ]
        bits = {} if self.weight_bits is None else {"weightBits": self.weight_bits}
        tries = self.choice.to_details(self.scheme)
        return {"scheme": str(self.scheme), **bits, **tries, **figures, "verdict": self.against or "within the limits"}


def measure(start: Start, settings: Quantize, bench: Bench) -> list[Row]:
    """Return one row a scheme, and another with all bits of its weights where it broke a limit without.

    Schemes of integers are measured by the method that they do best with, found once. The graph is kept of the smallest
    within the limits only, for the sake of memory.
    """
    rows: list[Row] = []
    choices: dict[QuantizeScheme, Choice] = {}
    tries = [(name, bits) for name in SCHEMES for bits in _weight_bits(name, settings.weight_bits)]
    limits = settings.auto or AutoChoice()
    for number, (name, bits) in enumerate(tries):
        if rows and rows[-1].scheme == name and not rows[-1].too_far:
            continue
        report = partial(_report, bench, 0.1 + 0.8 * number / len(tries), f"measures {name}")
        report()
        row = Row(name, weight_bits=bits)
        against = _why_not_tried(scheme_of(name, weight_bits=bits))
        if against is not None:
            rows.append(replace(row, against=against))
            continue
        try:
            if name not in choices:
                choices[name] = choose_method(name, start, settings, bench, weight_bits=bits, report=report)
                row = replace(row, choice=choices[name])
            quantized = quantize(
                name,
                start,
                settings.exclude,
                bench.spec_field,
                compute=_compute(name),
                weight_bits=bits,
                method=choices[name].method,
            )
        except UserError as error:
            against = error.message.removeprefix(f"{bench.spec_field}: ")
            rows.append(replace(row, against=against, too_far=error.reason == "NotQuantizable"))
            continue
        row = replace(
            row,
            computes=quantized.details["computes"],
            size_bytes=quantized.graph.size_bytes,
            fidelity=quantized.fidelity,
            latency=_time(start, quantized, limits),
            quantized=quantized,
        )
        too_far = bool(_distance(row, limits))
        rows.append(replace(row, against=objection(row, limits), too_far=too_far))
        best = smallest(rows)
        rows = [one if one is best else replace(one, quantized=None) for one in rows]
    return rows


def _report(bench: Bench, fraction: float, doing: str, by: str = "") -> None:
    bench.reporter.report("quantize", fraction, f"{doing}: {by}" if by else doing)


def _weight_bits(name: QuantizeScheme, given: int | None) -> tuple[int | None, ...]:
    """Return with how many bits of its weights a scheme is tried, in turn: 8 need VNNI where it is served."""
    if name not in INT8:
        return (None,)
    return (SAFE_WEIGHT_BITS, FULL_WEIGHT_BITS) if given is None else (given,)


def _why_not_tried(scheme: Scheme) -> str | None:
    if scheme.trains:
        return "it is trained, and Auto trains nothing"
    if scheme.leaves_gpu and serving_gpu() is not None:
        return "ONNX Runtime computes it on the processor, between copies from the GPU and back"
    return scheme.missing()


def _compute(name: QuantizeScheme) -> Compute | None:
    """Return what is fast here: GPUs compute in halves, and have no reason to store them only."""
    return Compute.FLOAT16 if name is QuantizeScheme.FLOAT16 and serving_gpu() is not None else None


def objection(row: Row, settings: AutoChoice) -> str:
    """Return which limit of the settings the row breaks, nothing when it keeps them all."""
    if too_far := _distance(row, settings):
        return too_far
    limit = NOT_SLOWER if settings.max_latency_ratio is None else settings.max_latency_ratio.value
    for one in row.latency:
        interval = f"{one.low:.2f} to {one.high:.2f}"
        at = f"at batch size {one.batch_size}: {one.ratio:.2f} of the float model's time, {interval}"
        if settings.max_latency_ratio is None and one.low > 1:
            return f"it is slower {at}"
        if one.high > limit:
            return f"it is not shown to stay below {limit:g} {at}"
    return ""


def _distance(row: Row, settings: AutoChoice) -> str:
    """Return which limit of the answers' distance to the float model's the row breaks, nothing when it keeps both."""
    assert row.fidelity is not None  # noqa: S101 — asked of measured rows only
    if row.fidelity.error > settings.max_error.value:
        return f"its error of {row.fidelity.error:.2%} is above maxError, {settings.max_error}"
    if settings.max_changed is not None and row.fidelity.changed > settings.max_changed.value:
        return f"{row.fidelity.changed:.2%} of its answers changed, above maxChanged, {settings.max_changed}"
    return ""


def smallest(rows: Sequence[Row]) -> Row | None:
    """Return the row of the fewest bytes, then of the least error, of those that nothing speaks against."""
    fit = [row for row in rows if not row.against and row.fidelity is not None]
    return min(fit, key=lambda row: (row.size_bytes, row.fidelity.error if row.fidelity else 0.0), default=None)


def _time(start: Start, quantized: Quantized, settings: AutoChoice) -> tuple[RatioInterval, ...]:
    """Return p50 latency over the float model's at each batch size, in the processes that an evaluation would take."""
    assert start.calibration is not None  # noqa: S101 — Auto needs it
    batches = {size: (_batch_of(start.calibration, size),) * 2 for size in settings.latency.batch_sizes}
    float_model, other = (Graph(path=str(path)) for path in (start.graph, quantized.graph.path))
    [found] = time_in_processes(float_model, [Timed(other, batches)], settings.latency)
    ratios = (ratio for size, times in found.items() for ratio in ratio_intervals(times, size))
    return tuple(one for one in ratios if one.metric == Metric.LATENCY_P50)


def _batch_of(samples: Samples, size: int) -> Any:
    return samples.rows(list(itertools.islice(itertools.cycle(range(len(samples))), size)))
