"""Which method a scheme does best with: one choice after another, each by the error that it leaves on other samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from plimsoll_api.spec import Quantize, QuantizeScheme
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.quantize.fidelity import Squares, error_of, squares_by_sample
from plimsoll_job.techniques.quantize.fit.fitted import Fitting
from plimsoll_job.techniques.quantize.fit.method import CHOICES, Method, fields_of
from plimsoll_job.techniques.quantize.quantized import able_layers
from plimsoll_job.techniques.quantize.schemes import scheme_of
from plimsoll_job.techniques.quantize.start import Start, answers_in, write
from plimsoll_job.techniques.record import six_digits
from plimsoll_job.techniques.shape import Bench

#: One of so many samples, in a shuffled order, judges what the others are for.
JUDGES = 4
#: With fewer samples both are done with all of them.
FEWEST = 32
#: A choice is taken when it leaves less than this share of the error, and less by so many times the standard error of
#: the mean difference between the squared errors of a sample.
SHARE, STANDARD_ERRORS = 0.98, 2.0

#: Hears what is tried.
Report = Callable[[str], None]


@dataclass(frozen=True)
class Try:
    """One method, and the error of the answers by it."""

    method: Method
    error: float
    taken: bool


@dataclass(frozen=True)
class Choice:
    """The method taken, what was tried for it in turn, and what is told of that."""

    method: Method = field(default_factory=Method)
    tries: tuple[Try, ...] = ()
    notes: tuple[str, ...] = ()

    def to_details(self, scheme: QuantizeScheme) -> dict[str, Any]:
        """Return the tries for the record."""
        told = [
            {**one.method.to_details(scheme), "error": six_digits(one.error), "taken": one.taken} for one in self.tries
        ]
        return {"tries": told} if told else {}


def choose_method(
    name: QuantizeScheme, start: Start, settings: Quantize, bench: Bench, *, weight_bits: int | None, report: Report
) -> Choice:
    """Return the method by which the scheme's answers are nearest to the float model's; UserError when it has no layer.

    What the settings name stays. The other fields are settled one after another, each with what was settled before:
    fitted on three quarters of the calibration samples and judged on the rest, with all layers quantized that may be.
    """
    best = Method.of(settings, name)
    free = [field for field in fields_of(name) if getattr(settings, field) is None]
    if not free:
        return Choice(best)
    known, judged, notes = parts(bench.need_calibration(), bench.seed)
    model = start.model.keeping(settings.exclude.layers if settings.exclude else ())
    able, _ = able_layers(name, model, settings.exclude, bench.spec_field)
    scheme, expected = scheme_of(name, weight_bits=weight_bits), start.answers_to(judged)
    fitting = Fitting(name=name, scheme=scheme, model=model, layers=able, calibration=known)

    def squares_of(method: Method) -> Squares:
        report(", ".join(method.to_details(name).values()))
        fitted = fitting.fit(method)
        return squares_by_sample(expected, answers_in(write(fitted.make(fitted.layers)), scheme, judged), judged)

    least = squares_of(best)
    tries = [Try(best, error_of(least, expected), taken=True)]
    for field_name in free:
        choices: list[dict[str, Any]] = [{field_name: value} for value in CHOICES[field_name][1:]]
        others = [replace(best, **choice) for choice in choices]
        found = {method: squares_of(method) for method in others}
        winners = {method: squares for method, squares in found.items() if is_less(squares, least)}
        best = min(winners, key=lambda method: winners[method].mean(), default=best)
        least = winners.get(best, least)
        tries += [Try(method, error_of(squares, expected), method == best) for method, squares in found.items()]
    return Choice(best, tuple(tries), notes)


def is_less(squares: Squares, than: Squares) -> bool:
    """Return whether the error is less by more than chance and too little to matter may make of it."""
    saved = than - squares
    if not np.isfinite(squares).all() or not np.sqrt(squares.mean()) < SHARE * np.sqrt(than.mean()):
        return False
    return len(saved) > 1 and bool(saved.mean() > STANDARD_ERRORS * saved.std(ddof=1) / np.sqrt(len(saved)))


def parts(samples: Samples, seed: int) -> tuple[Samples, Samples, tuple[str, ...]]:
    """Return the samples to fit with and those to judge by, and a note where they are the same."""
    if len(samples) < FEWEST:
        told = f"Auto fitted and judged its choices with the same {len(samples)} samples: {FEWEST} would be told apart."
        return samples, samples, (told,)
    order = np.random.default_rng(seed).permutation(len(samples))
    count = len(samples) // JUDGES
    return samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count])), ()
