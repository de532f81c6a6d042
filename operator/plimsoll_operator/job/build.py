"""The manifests of a CompressionJob's children."""

from __future__ import annotations

from collections.abc import Iterable

from plimsoll_api import names
from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.machine import Machine
from plimsoll_api.model import canonical_json
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.release import ModelRevisionSpec, RevisionSource
from plimsoll_api.spec import CompressionJobSpec, Output, Runtime
from plimsoll_api.status import JobSummary, ReportRef
from plimsoll_operator.claims import ClaimPath
from plimsoll_operator.cluster.resources import CONFIG_MAPS, MODEL_RELEASES, MODEL_REVISIONS, Json
from plimsoll_operator.pods import Owner, batch_job

PLAN_KEY = "plan.json"


def leaked_evaluation_data(spec: CompressionJobSpec) -> str | None:
    """Say in which URI of the compress pod the evaluation data would be visible, if in any."""
    evaluation = ClaimPath.parse(spec.data.evaluation.uri)
    for uri in [*spec.compress_uris, spec.output.uri]:
        if ClaimPath.parse(uri).holds(evaluation):
            return uri
    return None


def outside_of(store: str, uris: Iterable[str]) -> str | None:
    """Return the first URI that is not in the store: a pod's word must not have other claims mounted."""
    for uri in uris:
        try:
            if not ClaimPath.parse(store).holds(ClaimPath.parse(uri)):
                return uri
        except ValueError:
            return uri
    return None


def plan_config_map(owner: Owner, plan: Plan) -> Json:
    """Return the immutable ConfigMap that holds the plan."""
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": owner.metadata(names.plan_name(owner.name), {names.LABEL_JOB: owner.name}),
        "immutable": True,
        "data": {PLAN_KEY: canonical_json(plan.to_wire()).decode()},
    }


def compress_job(owner: Owner, spec: CompressionJobSpec, image: str) -> Json:
    """Return the batch Job that compresses. It mounts nothing of the evaluation data."""
    return batch_job(
        owner=owner,
        name=names.stage_name(owner.name, names.STAGE_COMPRESS),
        labels=_labels(owner, names.STAGE_COMPRESS),
        arguments=[names.STAGE_COMPRESS],
        runtime=spec.runtime,
        image=image,
        read=spec.compress_uris,
        written=[spec.output.uri],
        plan_config_map=names.plan_name(owner.name),
        backoff_limit=spec.backoff_limit,
    )


def evaluation_runtime(spec: CompressionJobSpec) -> Runtime:
    """Return where the evaluation runs."""
    return spec.evaluation_runtime or spec.runtime


def evaluate_job(
    owner: Owner,
    spec: CompressionJobSpec,
    image: str,
    *,
    baseline: ArtifactRef,
    candidate: ArtifactRef,
    compression_peak_memory_bytes: int | None,
) -> Json:
    """Return the batch Job that measures what compress made. It can write nothing but reports."""
    request = EvaluationRequest.of(spec, baseline, candidate, compression_peak_memory_bytes)
    return evaluation_job(
        owner=owner,
        name=names.stage_name(owner.name, names.STAGE_EVALUATE),
        labels=_labels(owner, names.STAGE_EVALUATE),
        runtime=evaluation_runtime(spec),
        image=image,
        request=request,
        backoff_limit=spec.backoff_limit,
    )


def evaluation_job(
    *,
    owner: Owner,
    name: str,
    labels: dict[str, str],
    runtime: Runtime,
    image: str,
    request: EvaluationRequest,
    backoff_limit: int,
) -> Json:
    """Return the batch Job that carries out an EvaluationRequest."""
    artifacts = [request.baseline, request.candidate] + ([request.fallback] if request.fallback else [])
    return batch_job(
        owner=owner,
        name=name,
        labels=labels,
        arguments=[names.STAGE_EVALUATE],
        runtime=runtime,
        image=image,
        read=[request.data.uri, request.output.uri, *(artifact.uri for artifact in artifacts)],
        written=[f"{request.output.uri.rstrip('/')}/reports"],
        environment={names.REQUEST_VARIABLE: canonical_json(request.to_wire()).decode()},
        backoff_limit=backoff_limit,
    )


def print_report_job(
    *, owner: Owner, name: str, labels: dict[str, str], runtime: Runtime, image: str, uri: str, digest: str
) -> Json:
    """Return the batch Job that prints a report again from the store."""
    return batch_job(
        owner=owner,
        name=name,
        labels=labels,
        arguments=[names.STAGE_PRINT_REPORT, "--uri", uri, "--digest", digest],
        runtime=runtime,
        image=image,
        read=[uri],
    )


def print_job_report(owner: Owner, spec: CompressionJobSpec, image: str, report: ReportRef) -> Json:
    """Return the batch Job that prints the job's report again."""
    return print_report_job(
        owner=owner,
        name=names.stage_name(owner.name, names.STAGE_PRINT_REPORT),
        labels=_labels(owner, names.STAGE_PRINT_REPORT),
        runtime=Runtime(**{**evaluation_runtime(spec).model_dump(), "resources": {}}),
        image=image,
        uri=report.uri,
        digest=report.digest,
    )


def revision(
    *,
    release: Owner,
    number: int,
    spec: CompressionJobSpec,
    artifact: ArtifactRef,
    baseline: ArtifactRef,
    source: RevisionSource,
    summary: JobSummary | None = None,
    report: ReportRef | None = None,
    measured_on: Machine | None = None,
) -> Json:
    """Return a ModelRevision, owned by the release so that no job's end collects it."""
    body = ModelRevisionSpec(
        release=release.name,
        revision=number,
        artifact=artifact,
        baseline=baseline,
        task=spec.task,
        evaluation_data=spec.data.evaluation,
        evaluation=spec.evaluation,
        gates=spec.gates,
        seed=spec.seed,
        output=Output(uri=spec.output.uri),
        runtime=evaluation_runtime(spec),
        source=source,
        summary=summary,
        report=report,
        measured_on=measured_on,
    )
    return {
        "apiVersion": MODEL_REVISIONS.api_version,
        "kind": MODEL_REVISIONS.kind,
        "metadata": release.metadata(names.revision_name(release.name, number), {names.LABEL_RELEASE: release.name}),
        "spec": body.to_wire(),
    }


def release_owner(namespace: str, name: str, uid: str) -> Owner:
    """Return the release as the owner of its revisions."""
    return Owner(MODEL_RELEASES, namespace, name, uid)


def _labels(owner: Owner, stage: str) -> dict[str, str]:
    return {names.LABEL_JOB: owner.name, names.LABEL_STAGE: stage}
