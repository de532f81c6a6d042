"""The generated definitions: structural, described, small, complete; and the generated files are those in the tree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plimsoll_api import API_VERSION, GROUP, VERSION
from plimsoll_api.crd import DEFINITIONS, Definition, custom_resource_definition, object_schema
from plimsoll_api.generate import ROOT, differences, generated_files
from plimsoll_api.reasons import MEANINGS, Reason
from plimsoll_api.resources import KINDS, MUTABLE_AFTER_START, CompressionJob
from plimsoll_api.rules import VALIDATIONS, to_camel
from plimsoll_api.spec import CompressionJobSpec

FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "title", "const", "definitions", "examples"}
DEFINITION = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)


def nodes(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def schema_nodes(definition: Definition) -> list[tuple[str, dict[str, Any]]]:
    return list(nodes(object_schema(definition.resource), definition.kind))


@DEFINITION
def test_every_schema_is_structural(definition: Definition) -> None:
    for path, node in schema_nodes(definition):
        assert not FORBIDDEN & node.keys(), path
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")), path
        assert not ("properties" in node and "additionalProperties" in node), path


@DEFINITION
def test_every_field_is_described(definition: Definition) -> None:
    for path, node in schema_nodes(definition):
        if not path.endswith(("]", "}", ".metadata", ".metadata.name")):
            assert node.get("description"), path


@DEFINITION
def test_every_list_says_how_it_merges_and_every_size_is_bounded(definition: Definition) -> None:
    for path, node in schema_nodes(definition):
        if ".spec" not in path:
            continue
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


@DEFINITION
def test_every_map_list_has_its_keys_required(definition: Definition) -> None:
    for path, node in schema_nodes(definition):
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


@DEFINITION
def test_every_rule_has_a_sentence_and_points_at_a_field_that_is_there(definition: Definition) -> None:
    for path, node in schema_nodes(definition):
        for rule in node.get(VALIDATIONS, []):
            assert rule["message"], path
            assert "\n" not in rule["message"]
            place: Any = node
            for part in rule.get("fieldPath", "").split(".")[1:]:
                place = place["properties"][part]
            assert rule.get("reason") != "FieldValueDuplicate", "the API server drops its message"


@DEFINITION
def test_kubectl_apply_can_keep_every_definition_in_its_annotation(definition: Definition) -> None:
    [text] = [text for path, text in generated_files().items() if path == Path(f"crds/{definition.name}.yaml")]
    # All annotations of an object may have 256 KiB together.
    assert len(text.encode()) < 240 * 1024
    assert len(json.dumps(custom_resource_definition(definition))) < 240 * 1024


@DEFINITION
def test_every_column_points_at_a_field_that_is_there(definition: Definition) -> None:
    schema = object_schema(definition.resource)
    for column in definition.columns:
        parts = column.path.split("[")[0].split(".")[1:]
        if parts[0] == "metadata":
            continue
        place: Any = schema
        for part in parts:
            place = place["properties"][part]
        assert column.type in ("string", "date") or place["type"] == column.type


@DEFINITION
def test_every_definition_has_a_status_subresource_and_one_version(definition: Definition) -> None:
    spec = custom_resource_definition(definition)["spec"]
    [version] = spec["versions"]
    assert version["subresources"] == {"status": {}}
    assert (spec["group"], version["name"]) == (GROUP, VERSION)
    assert spec["names"]["categories"] == ["plimsoll"]


def test_the_kinds_are_those_of_the_group() -> None:
    assert {definition.kind for definition in DEFINITIONS} == set(KINDS)
    assert {kind.model_fields["api_version"].default for kind in KINDS.values()} == {API_VERSION}


def test_every_field_of_a_started_job_is_immutable_but_for_two() -> None:
    rules = object_schema(CompressionJob)[VALIDATIONS]
    guarded = {rule["fieldPath"] for rule in rules if "oldSelf" in rule["rule"]}
    mutable = {f".spec.{to_camel(name)}" for name in MUTABLE_AFTER_START}
    assert guarded == {f".spec.{to_camel(name)}" for name in CompressionJobSpec.model_fields} - mutable


def test_every_default_is_written_out() -> None:
    spec = object_schema(CompressionJob)["properties"]["spec"]["properties"]
    assert spec["evaluation"]["default"] == {
        "latency": {"batchSizes": [1, 32], "threads": 1, "rounds": 40, "processes": 6},
        "acceptBaseline": False,
    }
    assert spec["seed"]["default"] == 0
    assert "default" not in spec["releaseRef"]


def test_the_generated_files_are_those_in_the_tree() -> None:
    assert differences(ROOT) == []


def test_a_stale_a_missing_and_a_foreign_file_are_told(tmp_path: Path) -> None:
    for path, text in generated_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert differences(tmp_path) == []
    (tmp_path / "crds/other.yaml").write_text("a: 1\n")
    (tmp_path / "docs/reference/api.md").write_text("old\n")
    (tmp_path / "charts/plimsoll/files/crds/modelreleases.plimsoll.dev.yaml").unlink()
    assert differences(tmp_path) == [
        "charts/plimsoll/files/crds/modelreleases.plimsoll.dev.yaml",
        "docs/reference/api.md",
        "crds/other.yaml",
    ]


def test_the_command_writes_the_files_and_checks_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plimsoll_api.generate", "--root", str(tmp_path)]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run([*command, "--check"], check=False).returncode == 0


def test_the_reference_has_every_field() -> None:
    page = generated_files()[Path("docs/reference/api.md")]
    for definition in DEFINITIONS:
        fields = [path.partition(".")[2] for path, _ in schema_nodes(definition) if path.count(".")]
        for field in fields:
            if not field.startswith(("metadata", "apiVersion", "kind")) and not field.endswith(("]", "}")):
                assert f"`{field}`" in page, field


def test_every_reason_has_a_meaning_and_stands_in_the_reference() -> None:
    assert set(MEANINGS) == set(Reason)
    page = generated_files()[Path("docs/reference/reasons.md")]
    assert all(f"| `{reason}` | {meaning} |" in page for reason, meaning in MEANINGS.items())
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())
