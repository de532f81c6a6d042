"""The table of manifests against a real API server: it takes and refuses the same ones as the models, in our words."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kubernetes import client
from tests.api.manifest_cases import Case, bad_cases, good_cases
from tests.api.mutations import mutated
from tests.integration.custom_objects import RefusedError, apply, try_to_create

from plimsoll_api.manifest import ManifestError, parse

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("case", bad_cases(), ids=str)
def test_a_bad_manifest_is_refused_with_its_field_and_what_would_be_right(
    api_client: client.ApiClient, case: Case
) -> None:
    with pytest.raises(RefusedError) as refused:
        try_to_create(api_client, case.manifest)
    assert case.field in str(refused.value)
    assert case.server_says in str(refused.value)


@pytest.mark.parametrize("case", good_cases(), ids=str)
def test_a_good_manifest_is_stored_and_a_second_apply_changes_nothing(
    api_client: client.ApiClient, namespace: str, case: Case
) -> None:
    first = apply(api_client, namespace, case.manifest)
    second = apply(api_client, namespace, case.manifest)
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["generation"] == 1
    assert second == first


@pytest.mark.parametrize("case", good_cases(), ids=str)
def test_the_server_fills_in_the_same_defaults_as_the_model(api_client: client.ApiClient, case: Case) -> None:
    stored = try_to_create(api_client, case.manifest)
    assert as_text(stored["spec"]) == as_text(parse(case.manifest).to_wire()["spec"])
    assert parse(stored) == parse(stored | {"spec": case.manifest["spec"]})


def test_server_and_models_agree_on_hundreds_of_damaged_manifests(api_client: client.ApiClient) -> None:
    chance = random.Random(20261122)  # noqa: S311
    disagreements, refusals = [], 0
    for _ in range(400):
        manifest, change = mutated(chance)
        verdicts = model_refusal(manifest), server_refusal(api_client, manifest)
        refusals += verdicts[0] is not None
        if (verdicts[0] is None) != (verdicts[1] is None):
            disagreements.append(f"{change}: model {verdicts[0]!r}, server {verdicts[1]!r}")
    assert not disagreements, "\n".join(disagreements)
    assert 100 < refusals < 380


def as_text(value: Any) -> Any:
    """Return the value with all leaves as text: a fraction written 1 is "1" in the model."""
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return [as_text(item) for item in value] if isinstance(value, list) else str(value)


def model_refusal(manifest: dict[str, Any]) -> str | None:
    try:
        parse(manifest)
    except ManifestError as error:
        return str(error)
    return None


def server_refusal(connection: client.ApiClient, manifest: dict[str, Any]) -> str | None:
    try:
        try_to_create(connection, manifest)
    except RefusedError as error:
        return str(error)
    return None
