"""What each step did: the model as it was after every one, measured as the candidate is."""

from __future__ import annotations

from collections.abc import Iterator

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gates import Metric
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import QualityFigures, RatioInterval, StepFigures
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.contestant import Contestant, enter, time_pair
from plimsoll_job.evaluate.latency import ratio_intervals
from plimsoll_job.evaluate.yardsticks import YARDSTICKS
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.store import Store


def measure_steps(
    baseline: Contestant, candidate: Contestant, request: EvaluationRequest, store: Store
) -> Iterator[StepFigures]:
    """Yield one row a step, in order; the models between are loaded one at a time. The last row is the candidate.

    No verdict rests on the models between: one that is no longer in the store, or that answers with NaN, has no row.
    """
    for record in candidate.artifact.manifest.lineage.steps:
        contestant = candidate
        if record.artifact_digest is not None:
            uri = candidate.artifact.ref.beside(record.artifact_digest)
            try:
                artifact = open_artifact(ArtifactRef(uri=uri, digest=record.artifact_digest, size_bytes=0), store, uri)
                contestant = enter(artifact, request, store, candidate)
            except UserError:
                continue
        quality = contestant.quality(baseline, YARDSTICKS[request.task])
        yield _figures_of(record.technique, contestant, quality, _latency(baseline, contestant, request))


def _latency(baseline: Contestant, contestant: Contestant, request: EvaluationRequest) -> RatioInterval:
    batch_size = request.settings.latency.batch_sizes[0]
    times = time_pair(baseline, contestant, batch_size, request)
    ratios = ratio_intervals(times, batch_size, request.seed)
    return next(one for one in ratios if one.metric is Metric.LATENCY_P50)


def _figures_of(technique: str, contestant: Contestant, quality: QualityFigures, latency: RatioInterval) -> StepFigures:
    manifest = contestant.artifact.manifest
    return StepFigures(
        technique=technique,
        artifact_digest=contestant.artifact.ref.digest,
        size_bytes=contestant.artifact.manifest.serving_bytes,
        parameters=manifest.parameters,
        nonzero_parameters=manifest.nonzero_parameters,
        macs=manifest.macs,
        latency=latency,
        **dict(quality),
    )
