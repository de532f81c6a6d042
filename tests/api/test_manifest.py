"""Manifests: the models take the good ones, refuse the bad ones, and say where and what would be right."""

from __future__ import annotations

import pytest
import yaml
from tests.api.manifest_cases import Case, bad_cases, base, good_cases

from plimsoll_api.manifest import ManifestError, parse
from plimsoll_api.resources import CompressionJob


@pytest.mark.parametrize("case", good_cases(), ids=str)
def test_a_good_manifest_is_taken(case: Case) -> None:
    assert parse(case.manifest).metadata.name == case.manifest["metadata"]["name"]


@pytest.mark.parametrize("case", good_cases(), ids=str)
def test_what_a_model_writes_it_reads_again(case: Case) -> None:
    resource = parse(case.manifest)
    assert parse(resource.to_wire()) == resource


@pytest.mark.parametrize("case", bad_cases(), ids=str)
def test_a_bad_manifest_is_refused_with_its_field_and_what_would_be_right(case: Case) -> None:
    with pytest.raises(ManifestError) as refused:
        parse(case.manifest)
    found = {problem.path: problem.message for problem in refused.value.problems}
    assert case.field in found
    assert case.says in "\n".join(p.message for p in refused.value.problems if p.path == case.field)


def test_the_table_is_as_large_as_promised() -> None:
    assert len(bad_cases()) >= 45
    assert len(good_cases()) >= 10
    assert len({case.name for case in bad_cases() + good_cases()}) == len(bad_cases() + good_cases())


def test_everything_that_is_wrong_is_said_at_once() -> None:
    manifest = base("job")
    spec = manifest["spec"]
    spec["task"] = "Poetry"
    spec["sedd"] = 1
    spec["steps"][0]["prune"]["amount"] = "0%"
    spec["steps"][1]["distill"]["losses"] = [{"labels": {}}, {"labels": {}}]
    spec["data"]["evaluation"]["uri"] = spec["data"]["train"]["uri"]
    spec["gates"][0]["min"] = "90%"
    manifest["metadata"]["name"] = "not.good"
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == [
        "metadata.name",
        "spec.data.evaluation.uri",
        "spec.gates[0]",
        "spec.sedd",
        "spec.steps[0].prune.amount",
        "spec.steps[1].distill.losses",
        "spec.task",
    ]


def test_rules_of_the_whole_spec_are_said_together() -> None:
    manifest = base("job")
    del manifest["spec"]["data"]["train"], manifest["spec"]["data"]["calibration"]
    manifest["spec"]["gates"][2]["batchSize"] = 8
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.data.calibration",
        "spec.data.train",
        "spec.gates",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "expected an object with apiVersion, kind, metadata and spec"),
        ("apiVersion: v1\nkind: Pod", "apiVersion: must be plimsoll.dev/v1alpha1, got 'v1'"),
        ("apiVersion: plimsoll.dev/v1alpha1\nkind: compressionjob", "did you mean CompressionJob?"),
        ("apiVersion: plimsoll.dev/v1alpha1\nkind: ModelRelease\nmetadata: {}", "metadata.name: is required"),
        ("apiVersion: plimsoll.dev/v1alpha1\nkind: ModelRelease\nmetadata: {name: .nan}", "JSON"),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ManifestError) as refused:
        parse(yaml.safe_load(text))
    assert says in str(refused.value)


def test_a_status_in_a_file_is_ignored_as_the_api_server_does() -> None:
    parsed = parse(base("job") | {"status": {"phase": 7}})
    assert isinstance(parsed, CompressionJob)
    assert parsed.status is None


def test_an_integer_and_its_text_are_the_same_value() -> None:
    manifest = base("job")
    parsed = parse(manifest)
    manifest["spec"]["steps"][1]["distill"]["losses"][0]["logits"]["temperature"] = "4"
    assert parse(manifest) == parsed


def test_null_is_refused_where_server_side_apply_refuses_it_and_create_drops_it() -> None:
    manifest = base("job")
    manifest["spec"]["releaseRef"] = None
    manifest["spec"]["seed"] = None
    with pytest.raises(ManifestError, match=r"spec\.releaseRef: must not be null: leave it out") as refused:
        parse(manifest)
    assert len(refused.value.problems) == 1


def test_what_is_not_well_formed_does_not_hide_the_rules_around_it() -> None:
    manifest = base("job")
    spec = manifest["spec"]
    spec["sedd"] = 1
    spec["task"] = "Poetry"
    spec["steps"][1]["distill"]["epochs"] = 0
    spec["steps"].append({"prune": {"criterion": "Activation", "granularity": "Unstructured", "amount": 0.5}})
    spec["data"] |= {"evaluate": spec["data"]["train"]}
    del spec["data"]["train"], spec["data"]["calibration"]
    spec["gates"][1] = {"metric": "accuracy", "maxRegression": "3%"}
    spec["gates"][2] |= {"batchSize": 8, "max": "soon"}
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.data.calibration",
        "spec.data.evaluate",
        "spec.data.train",
        "spec.gates",
        "spec.gates[2].max",
        "spec.sedd",
        "spec.steps",
        "spec.steps[1].distill.epochs",
        "spec.steps[3].prune.amount",
        "spec.steps[3].prune.granularity",
        "spec.task",
    ]


def test_a_rule_about_what_is_not_well_formed_is_passed_over() -> None:
    manifest = base("job")
    manifest["spec"]["data"]["train"] = "pvc://data/digits-train.npz"
    manifest["spec"]["steps"] = "prune"
    manifest["spec"]["evaluation"]["latency"]["batchSizes"] = []
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.data.train",
        "spec.evaluation.latency.batchSizes",
        "spec.steps",
    ]


def test_a_value_out_of_range_does_not_hide_the_rules_of_the_whole() -> None:
    manifest = base("job")
    manifest["spec"]["steps"][0]["prune"]["amount"] = "0%"
    manifest["spec"]["model"]["uri"] = "s3://models"
    manifest["spec"]["gates"][2]["batchSize"] = 8
    del manifest["spec"]["data"]["train"]
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.data.train",
        "spec.gates",
        "spec.model.uri",
        "spec.steps[0].prune.amount",
    ]


def test_one_step_in_the_place_of_the_list_is_refused_as_no_list() -> None:
    manifest = base("job")
    manifest["spec"]["steps"] = manifest["spec"]["steps"][0]
    with pytest.raises(ManifestError) as refused:
        parse(manifest)
    assert [problem.path for problem in refused.value.problems] == ["spec.steps"]
