"""One model of an evaluation: verified, loaded as it would be served, and what it answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from plimsoll_api.artifact import MODEL_FILE, TEXT_FILES
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import QualityFigures
from plimsoll_job.evaluate.processes import Timed
from plimsoll_job.evaluate.runtime import Server
from plimsoll_job.evaluate.timed import Graph
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
    """One model: its verified artifact without the graph, the samples as it takes them, what it answers.

    Its session is gone, so that the processes which time it have the memory.
    """

    artifact: Artifact
    #: Classes, numbers or dimensions of an answer.
    outputs: int
    samples: Samples
    answers: Answers

    def quality(self, baseline: Contestant, yardstick: Yardstick) -> QualityFigures:
        """Return what its answers are worth, beside those of the baseline."""
        return yardstick.figures(baseline.answers, self.answers, self.samples.labels)

    def graph(self, store: Store) -> Graph:
        """Return where its verified bytes lie, for a process of its own."""
        ref = self.artifact.ref
        digest = next(file.digest for file in self.artifact.manifest.files if file.path == MODEL_FILE)
        return Graph(path=str(store.locate(f"{ref.uri}/{MODEL_FILE}", "spec.output.uri")), digest=digest)


def enter(artifact: Artifact, request: EvaluationRequest, store: Store, other: Contestant | None = None) -> Contestant:
    """Load the artifact as it would be served, and let it answer every sample.

    Samples are those of the other model, unless the two cut texts in different ways, or have other inputs.
    """
    server = Server(artifact, threads=request.settings.latency.threads, spec_field="spec.output.uri")
    names = list(server.shapes)
    if (
        other is not None
        and all(other.artifact.files.get(name) == artifact.files.get(name) for name in TEXT_FILES)
        and [one.name for one in other.artifact.manifest.inputs] == names
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
    answers = server.predict(samples, yardstick.answers)
    texts = {name: content for name, content in artifact.files.items() if name in TEXT_FILES}
    return Contestant(replace(artifact, files=texts), server.outputs, samples, answers)


def timed(baseline: Contestant, other: Contestant, batch_sizes: Sequence[int], store: Store) -> Timed:
    """Return what is timed beside the baseline: the model, and a batch of its own for each of the two."""
    batches = {size: (batch_of(baseline.samples, size), batch_of(other.samples, size)) for size in batch_sizes}
    return Timed(other.graph(store), batches)


def batch_of(samples: Samples, size: int) -> Arrays:
    """Return a batch of that size; a smaller data set is repeated."""
    return samples.rows(list(itertools.islice(itertools.cycle(range(len(samples))), size)))
