"""Weights are loaded strictly, and no file can do more than be refused."""

import json
import random
import struct
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tests.jobimage.claims import Claims
from torch import nn

from plimsoll_api.spec import ModelSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.factory import build_factory
from plimsoll_job.load.model import load_model
from plimsoll_job.load.store import Store
from plimsoll_job.load.weights import load_strictly, parse_weights
from plimsoll_job.zoo import digits_cnn, wine_mlp


def source(**changes: Any) -> ModelSource:
    value = {"uri": "pvc://models/wine", "architecture": {"factory": "plimsoll_job.zoo:wine_mlp"}}
    return ModelSource.model_validate(value | changes)


def test_a_directory_and_a_file_are_the_same_model(claims: Claims, store: Store) -> None:
    by_directory = load_model(source(), store)
    by_file = load_model(source(uri="pvc://models/wine/model.safetensors", digest=by_directory.digest), store)
    assert by_file.digest == by_directory.digest
    assert not by_file.build().training


@pytest.mark.parametrize("path", ["nothing", "nothing.safetensors"])
def test_the_empty_folder_that_stands_for_a_missing_path_is_told_as_such(
    claims: Claims, store: Store, path: str
) -> None:
    (claims.directory / "models" / path).mkdir()
    with pytest.raises(
        UserError, match=rf"^spec\.model\.uri: there is nothing at pvc://models/{path} but an empty"
    ) as refused:
        load_model(source(uri=f"pvc://models/{path}"), store)
    assert refused.value.reason == "NotFound"


def test_another_digest_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match=r"spec.model.digest: .* has the digest sha256:"):
        load_model(source(digest="sha256:" + "0" * 64), store)


def test_all_tensors_that_do_not_fit_are_named_at_once() -> None:
    weights = wine_mlp().state_dict()
    weights["extra"] = torch.zeros(1)
    del weights["layers.1.bias"]
    weights["layers.3.weight"] = torch.zeros(2, 2)
    with pytest.raises(UserError) as error:
        load_strictly(wine_mlp(), weights, "spec.model.uri")
    assert error.value.message == (
        "spec.model.uri: the weights do not fit the module; tensors missing: layers.1.bias; unexpected: extra; "
        "of the wrong shape: layers.3.weight is [2, 2] instead of [64, 64]"
    )


def test_long_lists_of_tensors_are_cut() -> None:
    with pytest.raises(UserError, match=r"missing: .* and \d+ more"):
        load_strictly(digits_cnn(), {}, "f")


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="'a' of x holds NaN"):
        parse_weights(save({"a": torch.tensor([1.0, float("nan")])}), "x")


def header(value: Any, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95 pickle",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b"{" * 9,
        header({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, b"12345678"),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}}, b"12345678"),
        header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"12345678"),
        header({"a": {"dtype": "X99", "shape": [2], "data_offsets": [0, 8]}}, b"12345678"),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"12345678"),
        header({"a": 3}),
    ],
)
def test_hostile_headers_are_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"spec.model.uri: x is not a safetensors file"):
        parse_weights(content, "x")


def test_any_byte_of_the_header_may_be_wrong() -> None:
    whole = save({"a": torch.arange(8.0), "b": torch.ones(2, 2)})
    chance = random.Random(0)  # noqa: S311 - reproducible damage, not secrecy
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole) - 48)] = chance.randrange(256)
        try:
            parse_weights(bytes(damaged), "x")
        except UserError:
            continue


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("no_such_package.zoo:model", "cannot import 'no_such_package.zoo'"),
        ("plimsoll_job.zoo:model", "has no function 'model'"),
        ("plimsoll_job.zoo:torch", "failed"),
        ("tests.jobimage.modules:not_a_module", "returned int, expected a torch module"),
        ("tests.jobimage.modules:failing", "failed: no disk"),
    ],
)
def test_factories_that_make_no_module_are_refused(factory: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        build_factory(factory)
    assert error.value.message.startswith("spec.model.architecture.factory: ")


def test_the_digits_network_is_as_large_as_it_is_said_to_be() -> None:
    assert sum(parameter.numel() for parameter in digits_cnn().parameters()) == 326_346


def test_a_module_that_asks_for_its_version_is_loaded() -> None:
    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
            assert metadata.get("version") == 2
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    module, weights = Versioned(2, 2), {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    load_strictly(module, weights, "spec.model.uri")
    assert torch.equal(module.weight, weights["weight"])
