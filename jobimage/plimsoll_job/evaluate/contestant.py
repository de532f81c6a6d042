"""One model of an evaluation: verified, loaded as it would be served, and what it answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from plimsoll_api.plan import EvaluationRequest
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.quality import Classes
from plimsoll_job.evaluate.runtime import Server
from plimsoll_job.evaluate.timing import Times, measure_times
from plimsoll_job.load.artifact import Artifact
from plimsoll_job.load.data import Samples, check_classes, check_inputs
from plimsoll_job.load.inputs import Arrays

DATA_FIELD = "spec.data.evaluation"


@dataclass(frozen=True)
class Contestant:
    """One model: its verified artifact, its session, what it predicts."""

    artifact: Artifact
    server: Server
    predicted: Classes


def predict(artifact: Artifact, samples: Samples, request: EvaluationRequest) -> Contestant:
    """Load the artifact as it would be served, and let it answer every sample."""
    server = Server(artifact, threads=request.settings.latency.threads, spec_field="spec.output.uri")
    check_inputs(samples, server.shapes, f"{DATA_FIELD}.inputs")
    check_classes(labels_of(samples), server.classes, f"{DATA_FIELD}.labels")
    return Contestant(artifact, server, server.predict(samples))


def labels_of(samples: Samples) -> Classes:
    """Return the labels, which evaluation always asks for."""
    if samples.labels is None:
        raise UserError(f"{DATA_FIELD}.labels: evaluation needs labels")
    return samples.labels


def time_pair(
    baseline: Contestant, candidate: Contestant, samples: Samples, batch_size: int, request: EvaluationRequest
) -> Times:
    """Return the interleaved times of both models at one batch size."""
    batch = batch_of(samples, batch_size)
    return measure_times(
        lambda: baseline.server.run(batch), lambda: candidate.server.run(batch), rounds=request.settings.latency.rounds
    )


def batch_of(samples: Samples, size: int) -> Arrays:
    """Return a batch of that size; a smaller data set is repeated."""
    return samples.rows(list(itertools.islice(itertools.cycle(range(len(samples))), size)))
