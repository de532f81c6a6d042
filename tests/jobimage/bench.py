"""A technique's bench without a job around it."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from torch import nn

from plimsoll_api.report import Progress
from plimsoll_api.sources import Task
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import SINGLE_INPUT, Signature, single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.shape import Bench, Candidate


def samples_of(shape: tuple[int, ...], count: int = 40, classes: int = 3, seed: int = 0) -> Samples:
    chance = np.random.default_rng(seed)
    inputs = chance.standard_normal((count, *shape)).astype(np.float32)
    return Samples({SINGLE_INPUT: inputs}, chance.integers(0, classes, count), digest="sha256:" + "0" * 64)


def batches_of(*inputs: torch.Tensor) -> Batches:
    """Return each tensor as a batch of a model that takes one."""
    return Batches(lambda: [(one,) for one in inputs])


def candidate_of(module: nn.Module) -> Candidate:
    """Return a candidate of which a technique may change the module."""
    return Candidate(copy.deepcopy(module))


def bench_of(
    module: nn.Module,
    *,
    train: Samples | None = None,
    calibration: Samples | None = None,
    seed: int = 0,
    signature: Signature | None = None,
) -> Bench:
    signature = signature or single(module.input_shape)  # type: ignore[arg-type]
    source = SourceModel(partial(copy.deepcopy, module), architecture="tests", digest="sha256:" + "0" * 64)
    reporter, task = Reporter(emit=_say_nothing), Task.TABULAR_CLASSIFICATION
    return Bench(source, signature, train, calibration, seed, "spec.steps[0].prune", reporter, task=task)


def _say_nothing(progress: Progress) -> None:
    return None
