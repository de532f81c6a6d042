"""Custom resource definitions from the models: structural schemas without $ref, anyOf or oneOf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plimsoll_api import GROUP, VERSION
from plimsoll_api.resources import CompressionJob, ModelRelease, ModelRevision, Resource
from plimsoll_api.rules import VALIDATIONS

Schema = dict[str, Any]

#: What pydantic writes and the API server does not take: unknown fields are pruned and refused by it anyhow.
_DROPPED = {"title", "additionalProperties", "$defs", "properties", "items", "default", "anyOf", "$ref", "const"}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; priority 1 shows with -o wide only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def to_schema(self) -> Schema:
        """Return the column as the API server takes it."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "priority": self.priority}
        return column | ({"description": self.description} if self.description else {})


def condition(kind: str, part: str = "status") -> str:
    """Return the JSON path of a part of one condition."""
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


_AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Definition:
    """All that a custom resource definition says besides its schema."""

    resource: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]

    @property
    def kind(self) -> str:
        """The resource's kind."""
        return self.resource.__name__

    @property
    def name(self) -> str:
        """The name of the definition."""
        return f"{self.plural}.{GROUP}"


DEFINITIONS = (
    Definition(
        CompressionJob,
        "compressionjobs",
        "compj",
        (
            Column("Phase", ".status.phase"),
            Column("Progress", ".status.progress.percent", "integer", description="Percent of the whole job."),
            Column("Quality", ".status.summary.quality", description="Change of the task's first metric."),
            Column("Size", ".status.summary.size.change", description="Change of the bytes on disk."),
            Column("Latency", ".status.summary.latencyP95.change", description="p95, candidate over baseline."),
            Column("Verdict", ".status.verdict"),
            Column("Revision", ".status.revision", "integer"),
            Column("Stage", ".status.progress.stage", priority=1),
            Column("Message", condition("Ready", "message"), priority=1),
            _AGE,
        ),
    ),
    Definition(
        ModelRelease,
        "modelreleases",
        "mrel",
        (
            Column("Current", ".status.currentRevision", "integer"),
            Column("LastGood", ".status.lastGoodRevision", "integer", description="What a rollback would return to."),
            Column("Rollbacks", ".status.rollbacks", "integer"),
            Column("Ready", condition("Ready")),
            Column("Status", condition("Ready", "message")),
            Column("Digest", ".status.currentDigest", priority=1),
            _AGE,
        ),
    ),
    Definition(
        ModelRevision,
        "modelrevisions",
        "mrev",
        (
            Column("Release", ".spec.release"),
            Column("Number", ".spec.revision", "integer"),
            Column("Quality", ".spec.summary.quality", description="Change of the task's first metric."),
            Column("Size", ".spec.summary.size.change", description="Change of the bytes on disk."),
            Column("Latency", ".spec.summary.latencyP95.change", description="p95, candidate over baseline."),
            Column("Good", condition("Good")),
            Column("Job", ".spec.source.jobName", priority=1),
            Column("Digest", ".spec.artifact.digest", priority=1),
            _AGE,
        ),
    ),
)


def custom_resource_definition(definition: Definition) -> Schema:
    """Return the whole CustomResourceDefinition object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["plimsoll"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": object_schema(definition.resource)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.to_schema() for column in definition.columns],
                }
            ],
        },
    }


def object_schema(resource: type[Resource]) -> Schema:
    """Return the structural schema of a whole object; the API server knows its metadata itself."""
    schema = structural(resource.model_json_schema(by_alias=True))
    schema["properties"] |= {
        "apiVersion": {"type": "string", "description": "The version of this representation."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    schema["required"] = [name for name in schema.get("required", []) if name == "spec"]
    return {key: value for key, value in schema.items() if value != []}


def structural(schema: Schema, definitions: Schema | None = None) -> Schema:
    """Return a pydantic JSON schema as a structural one: references inlined, null branches dropped."""
    definitions = schema.get("$defs", definitions or {})
    own = {key: value for key, value in schema.items() if key not in _DROPPED}
    base: Schema = {}
    if "$ref" in schema:
        base = structural(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    elif "anyOf" in schema:
        [option] = [option for option in schema["anyOf"] if option != {"type": "null"}]
        base = structural(option, definitions)
    merged = base | own
    if rules := base.get(VALIDATIONS, []) + own.get(VALIDATIONS, []):
        merged[VALIDATIONS] = rules
    if "const" in schema:
        merged |= {"type": "string", "enum": [schema["const"]]}
    if "properties" in schema:
        merged["properties"] = {name: structural(part, definitions) for name, part in schema["properties"].items()}
    elif isinstance(values := schema.get("additionalProperties"), dict):
        merged["additionalProperties"] = structural(values, definitions)
    if "items" in schema:
        merged["items"] = structural(schema["items"], definitions)
    if schema.get("default") is not None:
        merged["default"] = _without_nulls(schema["default"])
    return merged


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
