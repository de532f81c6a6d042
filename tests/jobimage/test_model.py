"""Weights are loaded strictly, and no file can do more than be refused."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tests.jobimage.claims import Claims
from torch import nn

from plimsoll_api.spec import ModelSource
from plimsoll_job.errors import UserError
from plimsoll_job.load import weights as weights_module
from plimsoll_job.load.architectures.factory import build_factory
from plimsoll_job.load.model import load_model
from plimsoll_job.load.store import Store
from plimsoll_job.load.weights import StoredWeights, check_numbers, load_strictly
from plimsoll_job.zoo import digits_cnn, wine_mlp


def source(**changes: Any) -> ModelSource:
    value = {"uri": "pvc://models/wine", "architecture": {"factory": "plimsoll_job.zoo:wine_mlp"}}
    return ModelSource.model_validate(value | changes)


def test_a_directory_and_a_file_are_the_same_model(claims: Claims, store: Store) -> None:
    by_directory = load_model(source(), store)
    by_file = load_model(source(uri="pvc://models/wine/model.safetensors", digest=by_directory.digest), store)
    assert by_file.digest == by_directory.digest
    assert not by_file.take().training


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


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.bool])
def test_a_quantized_file_is_not_taken_for_numbers(kind: torch.dtype) -> None:
    """Without its scales it would be loaded as whole numbers, and some models answer rightly by their order."""
    weights = wine_mlp().state_dict()
    weights["layers.3.weight"] = (weights["layers.3.weight"] * 100).to(kind)
    with pytest.raises(UserError, match=rf"of the wrong type: layers\.3\.weight is {kind} instead of torch\.float32"):
        load_strictly(wine_mlp(), weights, "spec.model.uri")


def test_weights_that_single_precision_cannot_hold_are_refused() -> None:
    weights = {"fine": torch.ones(3, dtype=torch.float64), "large": torch.full((3,), 1e300, dtype=torch.float64)}
    with pytest.raises(UserError, match=r"tensor 'large' of x holds NaN or infinite numbers; what float32 cannot hold"):
        check_numbers(weights, "x")


def test_long_lists_of_tensors_are_cut() -> None:
    with pytest.raises(UserError, match=r"missing: .* and \d+ more"):
        load_strictly(digits_cnn(), {}, "f")


def stored(directory: Path, content: bytes) -> StoredWeights:
    (directory / "x").write_bytes(content)
    return StoredWeights(directory / "x", "x")


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="'a' of x holds NaN"):
        check_numbers({"a": torch.tensor([1.0, float("nan")])}, "x")


def header(value: Any, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
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
def test_hostile_headers_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spec.model.uri: x is not a safetensors file"):
        dict(stored(tmp_path, content))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_called_one_and_never_loaded(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"x is a pickle, .* never loaded; .* safetensors\.torch\.save_file") as error:
        stored(tmp_path, (tmp_path / "x.pt").read_bytes())
    assert error.value.reason == "PickleRefused"


def test_any_byte_of_the_header_may_be_wrong(tmp_path: Path) -> None:
    whole = save({"a": torch.arange(8.0), "b": torch.ones(2, 2)})
    chance = random.Random(0)  # noqa: S311 - reproducible damage, not secrecy
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole) - 48)] = chance.randrange(256)
        try:
            dict(stored(tmp_path, bytes(damaged)))
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


def test_tensors_are_read_anew_whatever_becomes_of_the_name_of_their_file(tmp_path: Path) -> None:
    weights = stored(tmp_path, save({"a": torch.arange(8.0)}))
    (tmp_path / "other").write_bytes(save({"a": torch.zeros(8)}))
    (tmp_path / "other").replace(tmp_path / "x")
    assert torch.equal(weights["a"], torch.arange(8.0))
    (tmp_path / "x").unlink()
    assert torch.equal(weights["a"], torch.arange(8.0))


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    weights = stored(tmp_path, save({"a": torch.arange(8.0)}))
    (tmp_path / "x").write_bytes(save({"a": torch.zeros(9)}))
    with pytest.raises(UserError, match=r"^spec\.model\.uri: x was written to while the job used it") as refused:
        weights["a"]
    assert refused.value.reason == "SourceChanged"


class Deep(nn.Module):
    """Layers of a name for each, one of whose weights is another's too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)) for _ in range(6))
        self.head = nn.Linear(8, 8)
        self.head.weight = self.layers.get_submodule("2.0").get_parameter("weight")


class Together(Deep):
    """Looks, as it is loaded, for tensors that are not its own."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        assert f"{prefix}head.weight" in state
        assert f"{prefix}layers.0.0.weight" in state
        super()._load_from_state_dict(state, prefix, *rest)


@pytest.mark.parametrize("kind", [Deep, Together])
def test_weights_that_are_loaded_in_parts_are_those_of_the_file(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "PART_BYTES", 300)
    given = {
        name: torch.full_like(value, number + 1) for number, (name, value) in enumerate(kind().state_dict().items())
    }
    given["head.weight"] = given["layers.2.0.weight"]
    (tmp_path / "x").write_bytes(save({name: value.clone() for name, value in given.items()}))
    module = kind()
    load_strictly(module, StoredWeights(tmp_path / "x", "x"), "spec.model.uri")
    assert all(torch.equal(value, given[name]) for name, value in module.state_dict().items())
