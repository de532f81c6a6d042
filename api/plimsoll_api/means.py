"""Checks of regression and of embeddings, which rest on means over samples.

A limit is a claim about a weighted sum of numbers that every sample has, such as the candidate's squared error less
1.05² times the baseline's: the mean of the sum is at most 0. The interval of that mean decides, so that both models are
compared on the same samples (Fieller, J R Stat Soc B 16 (1954) 175, for ratios of means).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from plimsoll_api import figures
from plimsoll_api.findings import DEFAULT_CONFIDENCE, Finding, would_decide
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.measured import LEAST_PAIRS, LEAST_SAMPLES, MissingError, error_moments, similarity_moments
from plimsoll_api.report import Moments, Report
from plimsoll_api.statistics import mean_interval, samples_to_decide_mean
from plimsoll_api.verdict import Verdict


def error_regression(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's mean error against (1 + limit) times the baseline's: paired non-inferiority."""
    moments = error_moments(report, gate.metric, LEAST_PAIRS)
    baseline, candidate = (_error(mean, gate.metric) for mean in moments.means)
    if baseline == 0:
        raise MissingError(f"the baseline's {gate.metric} is 0, of which no share can be allowed")
    allowed = 1 + limit
    change = figures.signed_percent(candidate / baseline - 1)
    return _decided(
        moments,
        (-(allowed**2 if gate.metric is Metric.RMSE else allowed), 1),
        confidence=_confidence(gate),
        observed=change,
        seen=f"{gate.metric} {figures.number(baseline)} → {figures.number(candidate)} ({change})",
        claim=f"the increase is {{side}} the limit of {figures.percent(limit)}",
    )


def error_maximum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own mean error against the most allowed."""
    moments = error_moments(report, gate.metric, LEAST_SAMPLES)
    observed = figures.number(_error(moments.means[1], gate.metric))
    return _decided(
        moments,
        (0, 1),
        less=limit**2 if gate.metric is Metric.RMSE else limit,
        observed=observed,
        seen=f"{gate.metric} is {observed}",
        claim=f"it is {{side}} the most allowed, {figures.number(limit)}",
    )


def r2_regression(report: Report, gate: Gate, limit: float) -> Finding:
    """The loss of R² against the limit in points: paired non-inferiority."""
    moments = error_moments(report, Metric.R2, LEAST_PAIRS)
    baseline, candidate = _r2(moments, 0), _r2(moments, 1)
    change = figures.signed_points(candidate - baseline)
    return _decided(
        moments,
        (-1, 1, -limit),
        confidence=_confidence(gate),
        observed=change,
        seen=f"R² {figures.percent(baseline)} → {figures.percent(candidate)} ({change})",
        claim=f"the loss is {{side}} the limit of {figures.points(limit)}",
    )


def r2_minimum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own R² against the least allowed."""
    moments = error_moments(report, Metric.R2, LEAST_SAMPLES)
    observed = figures.percent(_r2(moments, 1))
    return _decided(
        moments,
        (0, 1, -(1 - limit)),
        observed=observed,
        seen=f"R² is {observed}",
        claim=f"what is not explained is {{side}} the most allowed, {figures.percent(1 - limit)}",
    )


def similarity_minimum(report: Report, gate: Gate, limit: float) -> Finding:
    """The mean cosine between the candidate's and the baseline's vectors against the least allowed."""
    moments = similarity_moments(report)
    observed = f"{moments.means[0]:.4f}"
    return _decided(
        moments,
        (-1,),
        less=-limit,
        observed=observed,
        seen=f"the mean cosine to the baseline's vectors is {observed}",
        claim=f"its distance from 1 is {{side}} the most allowed, {figures.number(1 - limit)}",
    )


def _confidence(gate: Gate) -> float:
    return gate.confidence.value if gate.confidence is not None else DEFAULT_CONFIDENCE


def _error(mean: float, metric: Metric) -> float:
    return math.sqrt(mean) if metric is Metric.RMSE else mean


def _r2(moments: Moments, index: int) -> float:
    if moments.means[2] <= 0:
        raise MissingError("the labels are all the same, so that no share of their variance can be explained")
    return 1 - moments.means[index] / moments.means[2]


def weighted(moments: Moments, weights: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, variance and third central moment of a weighted sum of the numbers of a sample."""
    numbers = range(len(weights))
    mean = sum(weights[i] * moments.means[i] for i in numbers)
    parts = [weights[i] * weights[j] * moments.covariances[i][j] for i, j in product(numbers, repeat=2)]
    third = sum(
        weights[i] * weights[j] * weights[k] * moments.thirds[i][j][k]
        for i in numbers
        for j in numbers
        for k in numbers
    )
    variance = sum(parts)
    # Rounding leaves the variance of a sum that never varies a little beside 0; more than that below 0 cannot be.
    rounding = 1e-12 * sum(map(abs, parts))
    if variance < -rounding:
        raise MissingError("the report has covariances that cannot be")
    return mean, variance if variance > rounding else 0.0, third


def _decided(
    moments: Moments,
    weights: Sequence[float],
    *,
    observed: str,
    seen: str,
    claim: str,
    less: float = 0.0,
    confidence: float = DEFAULT_CONFIDENCE,
) -> Finding:
    """Judge the claim that the weighted sum, less a number, is at most 0 on average."""
    mean, variance, third = weighted(moments, weights)
    mean -= less
    low, high = mean_interval(mean, variance, third, moments.samples, confidence)
    sure = f"{figures.percent(confidence, decimals=6)} sure that"
    if high < 0 or high == low == 0:
        return Finding(Verdict.PASS, observed, f"{seen}; {sure} {claim.format(side='below')}")
    if low > 0:
        return Finding(Verdict.FAIL, observed, f"{seen}; {sure} {claim.format(side='above')}")
    needed = samples_to_decide_mean(mean, variance, moments.samples, confidence)
    doubt = f"it is open whether {claim.format(side='below')}"
    return Finding(
        Verdict.INCONCLUSIVE, observed, f"{seen}; {doubt}; {would_decide(needed, moments.samples, 'samples')}", needed
    )
