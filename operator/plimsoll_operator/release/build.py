"""The manifests of a ModelRelease's children."""

from __future__ import annotations

from plimsoll_api import names
from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.release import Reevaluation
from plimsoll_api.spec import Runtime
from plimsoll_api.status import ReportRef
from plimsoll_operator.cluster.resources import CONFIG_MAPS, Json
from plimsoll_operator.job.build import evaluation_job, print_report_job
from plimsoll_operator.pods import Owner
from plimsoll_operator.release.observe import PRINT_SUFFIX
from plimsoll_operator.release.revisions import Revision
from plimsoll_operator.release.wishes import evaluation_settings

RETRIES = 2
#: A release outlives its re-evaluations, so Kubernetes collects them: late enough for their logs to be of use, and for
#: an operator that was down to take the report. One that came later still would measure again.
KEPT_SECONDS = 86_400


def model_config(owner: Owner, revision: Revision) -> Json:
    """Return the ConfigMap that servers read: what to serve, and how to know that it is whole."""
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": owner.metadata(names.model_config_name(owner.name), {names.LABEL_RELEASE: owner.name}),
        "data": model_config_data(revision),
    }


def model_config_data(revision: Revision) -> dict[str, str]:
    """Return the pointer as a ConfigMap holds it."""
    artifact, machine = revision.spec.artifact, revision.spec.measured_on
    return {
        "revision": str(revision.number),
        "digest": artifact.digest,
        "uri": artifact.uri,
        "sizeBytes": str(artifact.size_bytes),
        "modelFile": MODEL_FILE,
        "baseline": "true" if artifact.digest == revision.spec.baseline.digest else "false",
        "requires": " ".join(artifact.requires),
        "instructionSets": " ".join(machine.instruction_sets) if machine else "",
        "runtime": machine.runtime if machine else "",
    }


def reevaluation_job(
    *,
    owner: Owner,
    request_digest: str,
    wish: Reevaluation | None,
    revision: Revision,
    fallback: Revision | None,
    default_image: str,
) -> Json:
    """Return the batch Job that measures the revision again, and whether the fallback's bytes are whole."""
    spec = revision.spec
    runtime = _runtime(wish, revision)
    request = EvaluationRequest(
        task=spec.task,
        data=(wish.data if wish else None) or spec.evaluation_data,
        settings=evaluation_settings(wish, revision),
        seed=spec.seed,
        baseline=spec.baseline,
        candidate=spec.artifact,
        fallback=fallback.spec.artifact if fallback else None,
        output=spec.output,
    )
    manifest = evaluation_job(
        owner=owner,
        name=names.reevaluation_name(owner.name, request_digest),
        labels=_labels(owner, names.STAGE_REEVALUATE),
        runtime=runtime,
        image=runtime.image or default_image,
        request=request,
        backoff_limit=RETRIES,
    )
    return _collected(manifest)


def print_reevaluation_report(
    *,
    owner: Owner,
    job_name: str,
    wish: Reevaluation | None,
    revision: Revision,
    report: ReportRef,
    default_image: str,
) -> Json:
    """Return the batch Job that prints the re-evaluation's report again."""
    runtime = _runtime(wish, revision)
    manifest = print_report_job(
        owner=owner,
        name=names.child_name(job_name, PRINT_SUFFIX),
        labels=_labels(owner, names.STAGE_PRINT_REPORT),
        runtime=runtime,
        image=runtime.image or default_image,
        uri=report.uri,
        digest=report.digest,
    )
    return _collected(manifest)


def _collected(batch_job: Json) -> Json:
    return batch_job | {"spec": {**batch_job["spec"], "ttlSecondsAfterFinished": KEPT_SECONDS}}


def _runtime(wish: Reevaluation | None, revision: Revision) -> Runtime:
    return (wish.runtime if wish else None) or revision.spec.runtime


def _labels(owner: Owner, stage: str) -> dict[str, str]:
    return {names.LABEL_RELEASE: owner.name, names.LABEL_STAGE: stage}
