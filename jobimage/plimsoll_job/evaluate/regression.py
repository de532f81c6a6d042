"""Quality of regression: how far answers [n, outputs] are from labels [n, outputs]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Errors, QualityFigures
from plimsoll_job.evaluate.moments import moments_of

Numbers = NDArray[np.floating[Any]]


def error_figures(answers: Numbers, labels: Numbers) -> QualityFigures:
    """Return RMSE and mean absolute error over all outputs, and the mean R² of the outputs, as scikit-learn's."""
    errors = answers.astype(np.float64) - labels
    scaled = _scaled(errors, labels)
    return QualityFigures(
        rmse=float(np.sqrt((errors**2).mean())),
        mae=float(np.abs(errors).mean()),
        r2=None if scaled is None else float(1 - scaled.mean()),
    )


def compare_errors(baseline: Numbers, candidate: Numbers, labels: Numbers) -> Errors:
    """Return the moments of both models' errors, sample by sample."""
    errors = [answers.astype(np.float64) - labels for answers in (baseline, candidate)]
    away = labels - labels.astype(np.float64).mean(axis=0)
    scaled = [one for one in (_scaled(part, labels) for part in (*errors, away)) if one is not None]
    return Errors(
        absolute=moments_of(*(np.abs(one).mean(axis=1) for one in errors)),
        squared=moments_of(*((one**2).mean(axis=1) for one in errors)),
        scaled=moments_of(*scaled) if scaled else None,
    )


def _scaled(errors: NDArray[np.float64], labels: Numbers) -> NDArray[np.float64] | None:
    """Return the squared error of each sample over the variance of the labels; None where one output's are constant."""
    variance = labels.astype(np.float64).var(axis=0)
    return None if (variance == 0).any() else (errors**2 / variance).mean(axis=1)
