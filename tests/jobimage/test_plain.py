"""Weights computed at each call: folded as they are loaded, with the answers as they were, or refused by name."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from tests.jobimage.bench import bench_of, samples_of
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from plimsoll_api.spec import ModelSource
from plimsoll_api.steps.distill import Distill
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_parameters, weights_bytes
from plimsoll_job.load.model import load_model
from plimsoll_job.load.plain import plain
from plimsoll_job.load.store import Store
from plimsoll_job.load.weights import load_strictly
from plimsoll_job.techniques.distill import apply as distill
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Candidate, Fresh


class Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).T


class LowRank(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left @ right

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weight[:, :2], torch.ones(2, weight.shape[1])


class Doubled(nn.Module):
    """Gives a weight of another shape than what it is computed from."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight])


class Texts(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.embedding = parametrizations.weight_norm(nn.Embedding(9, 4))
        self.cell = cell
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.cell(self.embedding(tokens))[0][:, -1])
        return answer


def own(layer: nn.Module, parametrization: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", parametrization, unsafe=True)
    return layer


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    parametrizations.weight_norm(layer.self_attn, "in_proj_weight")
    parametrizations.spectral_norm(layer.linear1)
    return layer


def pruned_twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    prune.random_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    prune.l1_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    prune.l1_unstructured(layer, "bias", 0.5)  # type: ignore[no-untyped-call]
    return layer


def recurrent(kind: Callable[..., nn.RNNBase], *names: str, way: Callable[..., nn.Module]) -> nn.Module:
    cell: nn.Module = kind(4, 5, batch_first=True)
    for name in names:
        way(cell, name)
    return Texts(cell)


IMAGES, ROWS, TOKENS = torch.randn(2, 3, 8, 8), torch.randn(2, 4), torch.tensor([[1, 2, 8], [3, 0, 1]])
KINDS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "weight norm, old": (lambda: weight_norm(nn.Linear(4, 5)), ROWS),
    "weight norm over all": (lambda: weight_norm(nn.Linear(4, 5), dim=None), ROWS),  # type: ignore[arg-type]
    "spectral norm, old": (lambda: spectral_norm(nn.Conv2d(3, 5, 3)), IMAGES),
    "weight norm": (lambda: parametrizations.weight_norm(nn.ConvTranspose2d(3, 5, 3)), IMAGES),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Conv2d(3, 5, 3)), IMAGES),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(4, 4)), ROWS),
    "of one's own": (lambda: own(nn.Linear(4, 4), Symmetric()), ROWS),
    "of two tensors": (lambda: own(nn.Linear(4, 4), LowRank()), ROWS),
    "of another shape": (lambda: own(nn.Linear(4, 4, bias=False), Doubled()), ROWS),
    "one on another": (lambda: own(parametrizations.weight_norm(nn.Linear(4, 4)), Symmetric()), ROWS),
    "masks": (pruned_twice, ROWS),
    "attention": (encoder, torch.randn(2, 3, 4)),
    "LSTM": (partial(recurrent, nn.LSTM, "weight_hh_l0", "weight_ih_l0", way=parametrizations.weight_norm), TOKENS),
    "GRU": (partial(recurrent, nn.GRU, "weight_hh_l0", way=parametrizations.spectral_norm), TOKENS),
    "LSTM, old": (partial(recurrent, nn.LSTM, "weight_hh_l0", way=weight_norm), TOKENS),
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_computed_at_each_call_is_computed_once(kind: str) -> None:
    make, inputs = KINDS[kind]
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        wanted = module(inputs)
        given = plain(module)(inputs)
    torch.testing.assert_close(given, wanted)
    kinds = [type(layer) for layer in module.modules()]
    assert all(kind.__module__.startswith(("torch.nn.modules.", "tests.")) for kind in kinds), kinds
    assert not any("_orig" in name or "parametrizations" in name for name in module.state_dict())
    copied = copy.deepcopy(module)
    with torch.no_grad():
        torch.testing.assert_close(copied(inputs), wanted)
        for parameter in copied.parameters():
            parameter.mul_(2)
        assert not torch.allclose(copied(inputs), wanted)


def test_a_weight_made_of_what_others_share_is_shared() -> None:
    first, second = (parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(2))
    for name in ("original0", "original1"):
        setattr(second.parametrizations.weight, name, getattr(first.parametrizations.weight, name))
    module = plain(nn.Sequential(first, second))
    assert first.weight is second.weight
    assert count_parameters(module) == 16 + 8


def test_what_a_weight_is_made_of_stays_where_another_layer_has_it() -> None:
    first, second = own(nn.Linear(4, 4), Symmetric()), nn.Linear(4, 4)
    second.weight = first.parametrizations.weight.original  # type: ignore[assignment,union-attr]
    module = nn.Sequential(first, second)
    wanted = module(ROWS)
    torch.testing.assert_close(plain(module)(ROWS), wanted)


def hooked() -> nn.Module:
    layer = nn.Linear(4, 4)
    raw = layer._parameters.pop("weight")
    layer.register_parameter("raw", raw)
    layer.register_forward_pre_hook(lambda one, _: setattr(one, "weight", one.raw * 2))
    layer.weight = raw  # type: ignore[assignment]
    del layer._parameters["weight"]
    layer.__dict__["weight"] = raw.detach()  # type: ignore[union-attr]
    return nn.Sequential(nn.Identity(), layer)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (hooked, r"1\.weight is computed at each call by function; .* torch's parametrizations"),
        (lambda: nn.Sequential(nn.LazyLinear(4)), r"0\.weight is lazy"),
        (lambda: nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), r"0\.weight is complex"),
        (lambda: nn.Sequential(nn.Linear(2, 2, device="meta")), r"0\.weight is on the meta device"),
        (lambda: nn.Sequential(torch.ao.nn.quantized.Linear(2, 2)), r"0 is quantized"),  # type: ignore[no-untyped-call]
    ],
)
def test_what_cannot_be_taken_is_named(make: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(UserError, match=f"^spec.model.architecture: {told}"):
        plain(make())


def test_a_sparse_weight_is_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].weight = nn.Parameter(torch.eye(2).to_sparse())
    with pytest.raises(UserError, match=r"0\.weight is sparse; give it dense"):
        plain(module)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_computed_in_single(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(dtype)
    module[1].weight = module[0].weight
    assert plain(module)(ROWS).dtype == torch.float32
    assert module[1].weight is module[0].weight


def test_a_weight_that_is_a_buffer_becomes_one_that_is_not_trained() -> None:
    layer = nn.Conv2d(3, 4, 3)
    weight = layer._parameters.pop("weight")
    layer.register_buffer("weight", weight.detach())  # type: ignore[union-attr]
    module = plain(nn.Sequential(layer))
    assert [name for name, one in module.named_parameters() if not one.requires_grad] == ["0.weight"]


def normed() -> nn.Module:
    """A factory, by its place in this module: three classes of four numbers."""
    module = nn.Sequential(weight_norm(nn.Linear(4, 8)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(8, 3)))
    module.input_shape = (4,)  # type: ignore[assignment]
    return module


NORMED = {"factory": f"{__name__}:normed"}


@pytest.mark.parametrize("use", ["model", "replay"])
def test_folded_wherever_it_is_built(use: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = normed().eval()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    if use == "model":
        source = ModelSource.model_validate({"uri": "pvc://m/model.safetensors", "architecture": NORMED})
        given = load_model(source, Store(mounts={"m": tmp_path})).module
        torch.testing.assert_close(given(ROWS), module(ROWS))
    else:
        fresh = Fresh(ModelSource.model_validate({"uri": "pvc://m/x", "architecture": NORMED}).architecture)
        given = replay(nn.Identity(), (), [fresh])
    assert sorted(given.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_a_student_that_is_normed_is_trained_folded() -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    module.input_shape = (4,)  # type: ignore[assignment]
    settings = Distill.model_validate({"epochs": 1, "batchSize": 8, "student": NORMED})
    applied = distill(settings, Candidate(plain(module)), bench_of(module, train=samples_of((4,))))
    assert sorted(applied.candidate.module.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_weights_of_an_older_way_to_write_them_are_loaded_by_the_modules_own_code() -> None:
    old = nn.Sequential(weight_norm(nn.Linear(4, 3)))
    new = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))
    load_strictly(new, old.state_dict(), "spec.model.uri")
    torch.testing.assert_close(new(ROWS), old(ROWS))


class Towers(nn.Module):
    """Two layers of the same tensors."""

    input_shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 8), nn.Linear(2, 8)
        self.right.weight, self.right.bias = self.left.weight, self.left.bias
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.left(inputs[:, :2]) - self.right(inputs[:, 2:]))
        return answer


@pytest.mark.parametrize("copies", [False, True])
def test_tied_weights_are_loaded_from_a_file_that_has_them_once_or_twice(copies: bool, tmp_path: Path) -> None:
    module = Towers()
    if copies:
        save_file({name: one.clone() for name, one in module.state_dict().items()}, tmp_path / "model.safetensors")
    else:
        save_model(module, str(tmp_path / "model.safetensors"))
    source = ModelSource.model_validate(
        {"uri": "pvc://m/model.safetensors", "architecture": {"factory": f"{__name__}:Towers"}}
    )
    loaded = load_model(source, Store(mounts={"m": tmp_path})).module
    torch.testing.assert_close(loaded(ROWS), module(ROWS))
    assert loaded.get_submodule("left").weight is loaded.get_submodule("right").weight
    assert weights_bytes(loaded) == 4 * count_parameters(loaded) == 4 * (24 + 27)


def test_tied_weights_that_differ_in_the_file_are_refused() -> None:
    weights = {name: one.clone() for name, one in Towers().state_dict().items()}
    weights["right.bias"] += 1
    with pytest.raises(UserError, match=r"left\.bias and right\.bias are one tensor in the module, and differ"):
        load_strictly(Towers(), weights, "spec.model.uri")


def test_a_tensor_that_is_missing_under_each_of_its_names_is_missing() -> None:
    weights = {name: one for name, one in Towers().state_dict().items() if "weight" not in name}
    with pytest.raises(UserError, match=r"missing: left\.weight, right\.weight, head\.weight"):
        load_strictly(Towers(), weights, "spec.model.uri")


def test_a_module_frozen_for_inference_can_be_trained_and_one_frozen_in_parts_stays_so() -> None:
    whole = plain(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).requires_grad_(False))
    assert all(one.requires_grad for one in whole.parameters())
    part = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 2))
    assert [one.requires_grad for one in plain(part).parameters()] == [False, False, True, True]
