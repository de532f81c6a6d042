"""Figures of a report that a check may rest on: there, finite and possible, or MissingError says what is wrong."""

from __future__ import annotations

import math

from plimsoll_api import figures
from plimsoll_api.gates import Metric
from plimsoll_api.report import ModelFigures, RatioInterval, Report
from plimsoll_api.statistics import PairedCounts


class MissingError(Exception):
    """The report lacks what a check needs; the sentence says what."""


def paired_counts(report: Report) -> PairedCounts:
    """Return the flip counts, the candidate first."""
    flips = report.flips
    if flips is None:
        raise MissingError("the report has no flip counts")
    counts = PairedCounts(flips.both_right, flips.wrong_to_right, flips.right_to_wrong, flips.both_wrong)
    if min(counts) < 0 or counts.samples != flips.samples:
        raise MissingError(
            f"the flip counts {', '.join(map(figures.count, counts))} are not those of "
            f"{figures.count(flips.samples)} samples"
        )
    if flips.samples == 0:
        raise MissingError("not one sample was measured")
    if flips.samples != report.data.samples:
        raise MissingError(f"{flips.samples} of the data's {report.data.samples} samples were compared")
    return counts


def macro_f1(model: ModelFigures | None, role: str) -> float:
    """Return the macro F1 of a model, from 0 to 1."""
    if model is None:
        raise MissingError(f"the report has no figures of the {role}")
    if not 0 <= model.macro_f1 <= 1:
        raise MissingError(f"the {role}'s macro F1 is {model.macro_f1}, not from 0 to 1")
    return model.macro_f1


def positive_figure(model: ModelFigures | None, role: str, metric: Metric) -> int:
    """Return the size in bytes, the parameters or the MACs of a model."""
    if model is None:
        raise MissingError(f"the report has no figures of the {role}")
    value = {Metric.SIZE: model.size_bytes, Metric.PARAMETERS: model.parameters, Metric.MACS: model.macs}[metric]
    if value <= 0:
        raise MissingError(f"the {role}'s {metric} is {value}, not above 0")
    return value


def candidate_latency(report: Report, metric: Metric, batch_size: int | None) -> tuple[int, float]:
    """Return the batch size and the candidate's latency at it, in seconds."""
    chosen = _batch_size(report, batch_size)
    if report.candidate is None:
        raise MissingError("the report has no figures of the candidate")
    found = [latency for latency in report.candidate.latency if latency.batch_size == chosen]
    if len(found) != 1 or found[0].runs < 1:
        raise MissingError(f"the report has not one latency of the candidate at batch size {chosen}")
    by_metric = {
        Metric.LATENCY_P50: found[0].p50_seconds,
        Metric.LATENCY_P95: found[0].p95_seconds,
        Metric.LATENCY_P99: found[0].p99_seconds,
    }
    value = by_metric[metric]
    if not (math.isfinite(value) and value > 0):
        raise MissingError(f"the candidate's {metric} is {value} seconds, not above 0")
    return chosen, value


def ratio_interval(report: Report, metric: Metric, batch_size: int | None) -> RatioInterval:
    """Return the interval of one timed metric at one batch size.

    The ratio itself may lie outside: a bootstrap of a high percentile can miss the percentile of all runs.
    """
    chosen = _batch_size(report, batch_size)
    found = [ratio for ratio in report.ratios if ratio.metric == metric and ratio.batch_size == chosen]
    if len(found) != 1:
        raise MissingError(f"the report has not one ratio of {metric} at batch size {chosen}")
    ratio = found[0]
    if (
        not all(math.isfinite(figure) and figure > 0 for figure in (ratio.low, ratio.ratio, ratio.high))
        or ratio.low > ratio.high
        or ratio.rounds < 1
    ):
        raise MissingError(
            f"the ratio of {metric} at batch size {chosen} is {ratio.ratio} within {ratio.low} and {ratio.high} "
            f"after {ratio.rounds} rounds, which cannot be"
        )
    return ratio


def _batch_size(report: Report, wished: int | None) -> int:
    """Return the wished batch size, or the first measured; all parts of the report must agree which that is."""
    if wished is not None:
        return wished
    if report.baseline is None or report.candidate is None:
        raise MissingError("the report has no figures of baseline and candidate")
    firsts = [model.latency[0].batch_size for model in (report.baseline, report.candidate) if model.latency]
    firsts += [ratio.batch_size for ratio in report.ratios[:1]]
    if len(firsts) != 3 or len(set(firsts)) != 1:
        raise MissingError("the report does not agree with itself on the first batch size that was measured")
    return firsts[0]
