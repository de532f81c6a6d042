"""Figures of a report that a check may rest on: there, finite and possible, or MissingError says what is wrong."""

from __future__ import annotations

import math

from plimsoll_api import figures
from plimsoll_api.gates import Metric
from plimsoll_api.report import LatencyFigures, ModelFigures, Moments, RatioInterval, Report
from plimsoll_api.statistics import PairedCounts

#: The runs that each process needs for a percentile: with fewer it is the slowest of them, whatever that was. Of three
#: processes these are enough for a 95% interval of the percentile itself between order statistics, which exists from 59
#: and 299 runs on: 1 - q^n - (1 - q)^n (David and Nagaraja, Order Statistics (2003), 7.1).
LEAST_RUNS = {Metric.LATENCY_P95: 20, Metric.LATENCY_P99: 100}


class MissingError(Exception):
    """The report lacks what a check needs; the sentence says what."""


def paired_counts(report: Report) -> PairedCounts:
    """Return the flip counts, the candidate first; where a sample has several answers, as many as are independent."""
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
    expected = report.data.samples if report.data.answers is None else report.data.answers
    if flips.samples != expected:
        raise MissingError(f"{flips.samples} of the data's {expected} samples were compared")
    if flips.samples == report.data.samples and flips.effective_samples is None:
        return counts
    effective = flips.effective_samples
    if effective is None or not 1 <= effective <= flips.samples or report.data.samples < 1:
        raise MissingError(f"{flips.samples} answers cannot count as {effective} independent ones")
    return counts.scaled_to(effective)


def not_finite(report: Report) -> tuple[int, int]:
    """Return how many of the candidate's answers are not finite, and how many there are."""
    if report.candidate is None or report.candidate.not_finite is None:
        raise MissingError("the report does not say how many of the candidate's answers are not finite")
    count = report.candidate.not_finite
    answers = report.data.samples if report.data.answers is None else report.data.answers
    if not 0 <= count <= answers or answers < 1:
        raise MissingError(f"{count} of {answers} answers cannot be not finite")
    return count, answers


#: With fewer samples no interval of a mean is honest: of differences, and of errors themselves, whose tail is long.
LEAST_PAIRS, LEAST_SAMPLES = 30, 100


def quality(model: ModelFigures | None, role: str, metric: Metric) -> float:
    """Return a metric of quality that lies from 0 to 1, or for a rank correlation from -1 to 1."""
    if model is None:
        raise MissingError(f"the report has no figures of the {role}")
    value, name = {
        Metric.MACRO_F1: (model.macro_f1, "macro F1"),
        Metric.NEIGHBOUR_OVERLAP: (model.neighbour_overlap, "neighbour overlap"),
        Metric.RANK_CORRELATION: (model.rank_correlation, "rank correlation"),
    }[metric]
    if value is None:
        raise MissingError(f"the report has no {name} of the {role}")
    least = -1 if metric is Metric.RANK_CORRELATION else 0
    if not least <= value <= 1:
        raise MissingError(f"the {role}'s {name} is {value}, not from {least} to 1")
    return value


def error_moments(report: Report, metric: Metric, least_samples: int) -> Moments:
    """Return the moments of what a metric of regression is the mean of: baseline, candidate, and for r2 the labels."""
    if report.errors is None:
        raise MissingError("the report has no errors of a regression")
    found = {
        Metric.MAE: report.errors.absolute,
        Metric.RMSE: report.errors.squared,
        Metric.R2: report.errors.scaled,
    }[metric]
    if found is None:
        raise MissingError("the labels are all the same, so that no share of their variance can be explained")
    return _checked(found, report, least_samples, numbers=3 if metric is Metric.R2 else 2, least=0)


def similarity_moments(report: Report) -> Moments:
    """Return the moments of the cosine to the baseline's vectors."""
    if report.similarity is None:
        raise MissingError("the report has no similarity to the baseline's vectors")
    found = _checked(report.similarity, report, LEAST_SAMPLES, numbers=1, least=-1)
    if found.means[0] > 1 + 1e-6:
        raise MissingError(f"the mean cosine is {found.means[0]}, above 1")
    return found


def _checked(moments: Moments, report: Report, least_samples: int, *, numbers: int, least: float) -> Moments:
    """Return the moments if they can be those of as many samples as the data has."""
    rows = moments.covariances
    cells = [cell for row in rows for cell in row]
    thirds = [cell for square in moments.thirds for row in square for cell in row]
    if (len(moments.means), len(cells), len(thirds)) != (numbers, numbers**2, numbers**3):
        raise MissingError(f"the report has not the moments of {numbers} numbers a sample")
    possible = all(map(math.isfinite, [*moments.means, *cells, *thirds])) and min(moments.means) >= least
    if not possible or min(rows[index][index] for index in range(numbers)) < 0:
        raise MissingError("the report has moments that cannot be")
    # How many samples may be left out is for the limit of notFinite to say.
    if report.left_out < 0 or moments.samples + report.left_out != report.data.samples:
        raise MissingError(f"{moments.samples} of the data's {report.data.samples} samples were compared")
    if moments.samples < least_samples:
        raise MissingError(f"{moments.samples} samples were measured, no interval is honest below {least_samples}")
    return moments


def positive_figure(model: ModelFigures | None, role: str, metric: Metric) -> int:
    """Return the size in bytes, the parameters or the MACs of a model."""
    if model is None:
        raise MissingError(f"the report has no figures of the {role}")
    value = {Metric.SIZE: model.size_bytes, Metric.PARAMETERS: model.parameters, Metric.MACS: model.macs}[metric]
    if value is None:
        raise MissingError(f"the {role}'s {metric} cannot be counted: {model.macs_unknown or 'the report has none'}")
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
    if value is None:
        raise MissingError(_too_few_runs(metric, found[0]))
    if not (math.isfinite(value) and value > 0):
        raise MissingError(f"the candidate's {metric} is {value} seconds, not above 0")
    return chosen, value


def ratio_interval(report: Report, metric: Metric, batch_size: int | None) -> RatioInterval:
    """Return the interval of one timed metric at one batch size.

    It rests on processes: those of one cannot tell how much another would differ.
    """
    chosen = _batch_size(report, batch_size)
    found = [ratio for ratio in report.ratios if ratio.metric == metric and ratio.batch_size == chosen]
    if len(found) != 1:
        measured = [one for one in report.candidate.latency if one.batch_size == chosen] if report.candidate else []
        few = measured and metric in LEAST_RUNS and measured[0].runs < LEAST_RUNS[metric] * measured[0].processes
        raise MissingError(
            _too_few_runs(metric, measured[0])
            if few
            else f"the report has not one ratio of {metric} at batch size {chosen}"
        )
    ratio = found[0]
    if (
        not all(math.isfinite(figure) and figure > 0 for figure in (ratio.low, ratio.ratio, ratio.high))
        or ratio.low > ratio.high
        or ratio.processes < 2
    ):
        raise MissingError(
            f"the ratio of {metric} at batch size {chosen} is {ratio.ratio} within {ratio.low} and {ratio.high} "
            f"after {ratio.processes} processes, which cannot be"
        )
    return ratio


def _too_few_runs(metric: Metric, measured: LatencyFigures) -> str:
    return (
        f"{metric} needs {LEAST_RUNS[metric]} runs in each process, {measured.runs // max(measured.processes, 1)} were "
        f"measured at batch size {measured.batch_size}; evaluation.latency.rounds gives more"
    )


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
