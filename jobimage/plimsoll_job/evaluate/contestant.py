"""One model of an evaluation: verified, loaded as it would be served, and what it answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from plimsoll_api.artifact import TEXT_FILES
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import QualityFigures
from plimsoll_job.evaluate.runtime import Server
from plimsoll_job.evaluate.timing import Times, measure_times
from plimsoll_job.evaluate.yardsticks import YARDSTICKS, Answers, Yardstick
from plimsoll_job.load.artifact import Artifact
from plimsoll_job.load.classes import check_classes_of
from plimsoll_job.load.data import Samples, check_inputs, read_samples, taken_by
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.load.labels import READ_LABELS
from plimsoll_job.load.store import Store

DATA_FIELD = "spec.data.evaluation"


@dataclass(frozen=True)
class Contestant:
    """One model: its verified artifact, its session, the samples as it takes them, what it answers."""

    artifact: Artifact
    server: Server
    samples: Samples
    answers: Answers

    def quality(self, baseline: Contestant, yardstick: Yardstick) -> QualityFigures:
        """Return what its answers are worth, beside those of the baseline."""
        return yardstick.figures(baseline.answers, self.answers, self.samples.labels)


def enter(artifact: Artifact, request: EvaluationRequest, store: Store, other: Contestant | None = None) -> Contestant:
    """Load the artifact as it would be served, and let it answer every sample.

    Samples are those of the other model, unless the two cut texts in different ways, or have other inputs.
    """
    server = Server(artifact, threads=request.settings.latency.threads, spec_field="spec.output.uri")
    names = list(server.shapes)
    if (
        other is not None
        and all(other.artifact.files.get(name) == artifact.files.get(name) for name in TEXT_FILES)
        and list(other.server.shapes) == names
    ):
        samples = other.samples
    else:
        columns = [part.column for part in request.data.slices]
        read_labels = READ_LABELS[request.task]
        samples = read_samples(request.data, store, DATA_FIELD, read_labels, columns=columns, files=artifact.files)
        samples = taken_by(samples, names)
    yardstick = YARDSTICKS[request.task]
    check_classes_of(samples, request.data, server.outputs, DATA_FIELD, artifact.manifest.classes)
    check_inputs(samples, server.shapes, f"{DATA_FIELD}.{'text' if request.data.text else 'inputs'}")
    yardstick.check(samples.labels, server.outputs, DATA_FIELD)
    return Contestant(artifact, server, samples, server.predict(samples, yardstick.answers))


def time_pair(baseline: Contestant, candidate: Contestant, batch_size: int, request: EvaluationRequest) -> Times:
    """Return the interleaved times of both models at one batch size."""
    first, second = (batch_of(one.samples, batch_size) for one in (baseline, candidate))
    return measure_times(
        lambda: baseline.server.run(first),
        lambda: candidate.server.run(second),
        rounds=request.settings.latency.rounds,
    )


def batch_of(samples: Samples, size: int) -> Arrays:
    """Return a batch of that size; a smaller data set is repeated."""
    return samples.rows(list(itertools.islice(itertools.cycle(range(len(samples))), size)))
