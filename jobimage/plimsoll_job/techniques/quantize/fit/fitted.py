"""What a scheme makes its graph of: the float model and its ranges, fitted to calibration data by a method."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plimsoll_api.spec import BiasCorrection, Equalization, QuantizeScheme, RangeMethod, Rounding
from plimsoll_api.steps.quantize import RANGED
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.fit.method import Method, fields_of
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.ranges import Observed, Ranges, write_ranges
from plimsoll_job.techniques.quantize.refine.biases import Shifts, mean_losses, shift_biases
from plimsoll_job.techniques.quantize.refine.compensate import compensate
from plimsoll_job.techniques.quantize.refine.grid import INT4, INT8, Grid
from plimsoll_job.techniques.quantize.refine.refined import Refined
from plimsoll_job.techniques.quantize.refine.smooth import smooth
from plimsoll_job.techniques.quantize.schemes import Scheme

#: Names that a note lists.
MOST_NAMES = 5


@dataclass(frozen=True)
class Fitted:
    """One fit, of which graphs are made that quantize all of its layers or some."""

    name: QuantizeScheme
    scheme: Scheme
    model: FloatModel
    #: All that may get the format.
    layers: Sequence[Layer]
    method: Method
    observed: Observed | None = None
    ranges: Ranges | None = None
    equalized: Refined | None = None
    rounded: Refined | None = None
    shifts: Shifts | None = None

    @property
    def padding(self) -> Padding:
        """Where padding is in the activations that were observed."""
        return Padding() if self.observed is None else self.observed.padding

    def make(self, layers: Collection[Layer]) -> LeanModel:
        """Return the graph in which these layers have the scheme's format; the others are as the model has them."""
        give_back()
        return self.scheme.convert(self._refined(layers), layers, self.ranges)

    def to_details(self) -> dict[str, Any]:
        """Return each choice that the scheme has, and how much it changed."""
        counts: dict[str, dict[str, Any]] = {field: {} for field in fields_of(self.name)}
        if self.observed is not None and self.method.ranges is not RangeMethod.MIN_MAX:
            counts["ranges"] = {
                "activations": len(self.observed.ends),
                "narrowed": self.observed.narrowed(self.method.ranges),
            }
        if self.equalized is not None:
            counts["equalization"] = {"layers": len(self.equalized.changed)}
        if self.rounded is not None:
            counts["rounding"] = {"layers": len(self.rounded.changed)}
        if self.shifts is not None:
            counts["bias"] = {"layers": len(self.shifts.shifts), "leftOut": self._names(self.shifts.left)}
        return {field: {"method": str(getattr(self.method, field)), **more} for field, more in counts.items()}

    def notes(self) -> tuple[str, ...]:
        """Tell of choices that change nothing, and of the layers whose biases are left."""
        done = {
            "equalization": None if self.equalized is None else (self.equalized.changed, self.equalized.left),
            "rounding": None if self.rounded is None else (self.rounded.changed, self.rounded.left),
            "bias": None if self.shifts is None else (self.shifts.shifts, self.shifts.left),
        }
        told = []
        for name, (changed, left) in ((name, both) for name, both in done.items() if both is not None):
            choice, whys = getattr(self.method, name), "; ".join(sorted(set(left.values())))
            if not changed:
                told.append(f"{name}: {choice} changes nothing of this model in {self.name}: {whys or 'no layer'}.")
            elif name == "bias" and left:
                names = self._names(left)
                more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
                told.append(f"bias: {choice} leaves {', '.join(names[:MOST_NAMES])}{more} as they are: {whys}.")
        return tuple(told)

    def _names(self, nodes: Collection[str]) -> list[str]:
        return [layer.name for layer in self.model.layers if layer.node in nodes]

    def _refined(self, layers: Collection[Layer]) -> FloatModel:
        """Return the model with the weights and the biases that were found for these layers."""
        chosen = {layer.node for layer in layers}
        found = {} if self.shifts is None else self.shifts.shifts
        shifts = {node: shift for node, shift in found.items() if node in chosen}
        weights = self._weights(chosen)
        if not weights and not shifts:
            return self.model
        changed = self.model.lean()
        if weights and self.rounded is not None:
            rounded = self.rounded.model.lean()
            sources = {one.name: rounded.source(one) for one in rounded.proto.graph.initializer if one.name in weights}
            for constant in changed.proto.graph.initializer:
                if constant.name in sources:
                    changed.replace(constant, constant.name, constant.data_type, sources[constant.name])
        shift_biases(changed, shifts)
        return self.model.rewritten(changed)

    def _weights(self, chosen: Collection[str]) -> set[str]:
        """Return the weights that were rounded, but for those which a layer also reads that is not chosen."""
        if self.rounded is None:
            return set()
        floats = {weight for layer in self.model.layers if layer.node not in chosen for weight in layer.weights}
        rounded = {layer.weight for layer in self.model.layers if layer.node in self.rounded.changed}
        return rounded - floats


def _those_of(model: FloatModel, layers: Collection[Layer]) -> list[Layer]:
    """Return the same layers as the model has them."""
    nodes = {layer.node for layer in layers}
    return [layer for layer in model.layers if layer.node in nodes]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Fits one model to one set of samples for one scheme by any methods, and finds what they share once.

    What is known already can be given: of `observed` the model's activations, of `ranges` what was learned.
    """

    name: QuantizeScheme
    scheme: Scheme
    model: FloatModel
    layers: Sequence[Layer]
    calibration: Samples | None
    observed: Observed | None = None
    ranges: Ranges | None = None
    _equalized: dict[Equalization, Refined] = field(default_factory=dict)
    _rounded: dict[Equalization, Refined] = field(default_factory=dict)
    _observed: dict[Equalization, Observed] = field(default_factory=dict)

    def fit(self, method: Method) -> Fitted:
        """Return the fit by the method."""
        equalized = None if method.equalization is Equalization.NONE else self._equalize(method.equalization)
        # What nothing was made alike in is the model as it was.
        kind = method.equalization if equalized is not None and equalized.changed else Equalization.NONE
        model = self.model if equalized is None else equalized.model
        observed, ranges = self._observe(kind, model), self.ranges
        if ranges is None and observed is not None:
            ranges = write_ranges(observed.ranges(method.ranges))
        rounded = None if method.rounding is Rounding.NEAREST else self._round(kind, model)
        layers = _those_of(model, self.layers)
        fitted = Fitted(self.name, self.scheme, model, layers, method, observed, ranges, equalized, rounded)
        if method.bias is BiasCorrection.KEEP:
            return fitted
        shifts = mean_losses(model, fitted.make(layers), layers, self._samples)
        return replace(fitted, shifts=shifts)

    def _equalize(self, kind: Equalization) -> Refined:
        if kind not in self._equalized:
            self._equalized[kind] = smooth(self.model, self.layers, self._samples, self._grid)
        return self._equalized[kind]

    def _observe(self, kind: Equalization, model: FloatModel) -> Observed | None:
        if self.name not in RANGED:
            return None
        if kind is Equalization.NONE and self.observed is not None:
            return self.observed
        if kind not in self._observed:
            self._observed[kind] = Observed.of(model, self._samples)
        return self._observed[kind]

    def _round(self, kind: Equalization, model: FloatModel) -> Refined:
        if kind not in self._rounded:
            self._rounded[kind] = compensate(model, _those_of(model, self.layers), self._samples, self._grid)
        return self._rounded[kind]

    @property
    def _grid(self) -> Grid:
        bits = self.scheme.weight_bits
        return INT4 if bits is None else INT8[bits]

    @property
    def _samples(self) -> Samples:
        assert self.calibration is not None  # noqa: S101 — the step asked for it
        return self.calibration
