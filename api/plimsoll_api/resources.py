"""The three custom resources as whole objects: metadata, spec, status."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from plimsoll_api.model import Model
from plimsoll_api.release import ModelReleaseSpec, ModelReleaseStatus, ModelRevisionSpec, ModelRevisionStatus
from plimsoll_api.rules import Rule, cel_text, to_camel
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_api.status import CompressionJobStatus
from plimsoll_api.values import NAME, Name

#: What a person may change while a job runs.
MUTABLE_AFTER_START = ("suspend", "ttl_seconds_after_finished")


class ObjectMeta(Model):
    """The part of an object's metadata that Plimsoll reads; the rest is left alone."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=253, description="The object's name.")
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class LabelMeta(ObjectMeta):
    """Metadata of an object whose name goes into labels and into the names of its children."""

    name: Name = Field(description="The object's name.")


#: What LabelMeta asks for; the API server takes rules about metadata at the root only.
_SHORT_NAME = Rule(
    cel=f"self.metadata.name.size() <= {NAME.max_length} && self.metadata.name.matches({cel_text(NAME.anchored)})",
    holds=lambda resource: True,
    message=f"{NAME.message}, of at most {NAME.max_length} characters",
    field="metadata.name",
)


def _unchanged_once_started(name: str) -> Rule:
    """Return the transition rule for one field of a started job's spec; only the API server sees transitions."""
    field = to_camel(name)
    same = f"self.spec.{field} == oldSelf.spec.{field}"
    if not CompressionJobSpec.model_fields[name].is_required():
        both = f"has(self.spec.{field}) == has(oldSelf.spec.{field})"
        same = f"{both} && (!has(self.spec.{field}) || {same})"
    mutable = " and ".join(map(to_camel, MUTABLE_AFTER_START))
    return Rule(
        cel=f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || ({same})",
        holds=lambda resource: True,
        message=f"is immutable once the job has started; only {mutable} may change: make a new CompressionJob",
        field=f"spec.{field}",
        reason="FieldValueForbidden",
    )


class Resource(Model):
    """A custom resource of the group."""

    api_version: Literal["plimsoll.dev/v1alpha1"] = "plimsoll.dev/v1alpha1"
    kind: str
    metadata: ObjectMeta


class CompressionJob(Resource):
    """One request to compress one model, and to release it only once it is proved good."""

    rules = (
        _SHORT_NAME,
        *(_unchanged_once_started(name) for name in CompressionJobSpec.model_fields if name not in MUTABLE_AFTER_START),
    )

    kind: Literal["CompressionJob"] = "CompressionJob"
    metadata: LabelMeta
    spec: CompressionJobSpec = Field(description="What is asked for.")
    status: CompressionJobStatus | None = Field(default=None, description="What the operator tells.")


class ModelRelease(Resource):
    """A name that points at the revision of a model now serving, and at the last good one."""

    rules = (_SHORT_NAME,)

    kind: Literal["ModelRelease"] = "ModelRelease"
    metadata: LabelMeta
    spec: ModelReleaseSpec = Field(default=ModelReleaseSpec(), description="What is asked for.")
    status: ModelReleaseStatus | None = Field(default=None, description="What the operator tells.")


class ModelRevision(Resource):
    """One immutable, numbered artifact that may serve. The operator makes them; people read them."""

    kind: Literal["ModelRevision"] = "ModelRevision"
    spec: ModelRevisionSpec = Field(description="What it is; never changed.")
    status: ModelRevisionStatus | None = Field(default=None, description="What the operator tells.")


KINDS: dict[str, type[CompressionJob] | type[ModelRelease] | type[ModelRevision]] = {
    "CompressionJob": CompressionJob,
    "ModelRelease": ModelRelease,
    "ModelRevision": ModelRevision,
}
