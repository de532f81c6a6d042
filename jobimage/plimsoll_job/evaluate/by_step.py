"""What each step did: the model as it was after every one, measured as the candidate is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import QualityFigures, RatioInterval, StepFigures
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.contestant import Contestant, enter, timed
from plimsoll_job.evaluate.processes import Timed
from plimsoll_job.evaluate.yardsticks import YARDSTICKS
from plimsoll_job.load.artifact import Artifact, open_artifact
from plimsoll_job.load.store import Store


@dataclass(frozen=True)
class Between:
    """A model between two steps: what it is, what its answers are worth, and how it is timed."""

    technique: str
    artifact: Artifact
    quality: QualityFigures
    timed: Timed


def models_between(
    baseline: Contestant, candidate: Contestant, request: EvaluationRequest, store: Store
) -> Iterator[Between]:
    """Yield the model after each step but the last, in order; one is loaded at a time.

    No verdict rests on them: one that is no longer in the store, or cannot be measured, is left out.
    """
    batch_sizes = request.settings.latency.batch_sizes[:1]
    for record in candidate.artifact.manifest.lineage.steps:
        if record.artifact_digest is None:
            continue
        uri = candidate.artifact.ref.beside(record.artifact_digest)
        try:
            artifact = open_artifact(ArtifactRef(uri=uri, digest=record.artifact_digest, size_bytes=0), store, uri)
            contestant = enter(artifact, request, store, candidate)
        except UserError:
            continue
        yield Between(
            record.technique,
            contestant.artifact,
            contestant.quality(baseline, YARDSTICKS[request.task]),
            timed(baseline, contestant, batch_sizes, store),
        )


def step_figures(technique: str, artifact: Artifact, quality: QualityFigures, latency: RatioInterval) -> StepFigures:
    """Return the row of the model after a step; `latency` is its median at the first batch size."""
    manifest = artifact.manifest
    return StepFigures(
        technique=technique,
        artifact_digest=artifact.ref.digest,
        size_bytes=manifest.serving_bytes,
        parameters=manifest.parameters,
        nonzero_parameters=manifest.nonzero_parameters,
        macs=manifest.macs,
        latency=latency,
        **dict(quality),
    )
