"""How a model is trained where the step leaves it open: by the family of the model, told by what it computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from plimsoll_api.steps.training import Schedule
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.record import six_digits


class Family(StrEnum):
    """What a model computes, as far as it decides how the model learns."""

    ATTENTION = "Attention"
    RECURRENT = "Recurrent"
    CONVOLUTIONAL = "Convolutional"
    DENSE = "Dense"


@dataclass(frozen=True)
class Recipe:
    """AdamW's settings: the peak learning rate is reached after `warmup_ratio` of all steps, and decays by a cosine.

    Gradients of a larger norm than `max_grad_norm` are scaled down to it; 0 leaves them as they are. Weights decay, but
    not norms, biases and embeddings.
    """

    learning_rate: float
    warmup_ratio: float = 0.0
    max_grad_norm: float = 0.0
    weight_decay: float = 0.01

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of so many."""
        warm_up = round(self.warmup_ratio * steps)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * cosine_decay((step - warm_up) / max(1, steps - warm_up))


#: Devlin et al. 2019 (arXiv 1810.04805) train 2e-5 to 5e-5 on labels, with warm-up; what was pruned is farther away.
#: Recurrent gradients explode (Pascanu et al. 2013, arXiv 1211.5063).
RECIPES = {
    Family.ATTENTION: Recipe(1e-4, warmup_ratio=0.1, max_grad_norm=1.0),
    Family.RECURRENT: Recipe(1e-3, max_grad_norm=1.0),
    Family.CONVOLUTIONAL: Recipe(1e-3),
    Family.DENSE: Recipe(1e-3),
}
#: The peak for attention whose weights are drawn: what has learned nothing forgets nothing.
FRESH_RATE = 5e-4

#: Layers whose weights do not decay.
KEPT = (
    nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase,
)  # fmt: skip
#: What models call biases and embeddings that no layer of torch's holds: those of positions, classes and distances.
KEPT_NAMES = ("bias", "embed", "token", "pos_")
#: Operations of torch that attend by themselves.
FUSED = ("scaled_dot_product", "multi_head_attention", "transformer_encoder_layer")


def cosine_decay(progress: float) -> float:
    """Return the share of the peak learning rate at a progress from 0 to 1 (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * progress)) / 2


def recipe_of(settings: Schedule, family: Family, *, fresh: bool = False) -> Recipe:
    """Return the family's recipe with what the settings say; `fresh` weights were just drawn."""
    recipe = RECIPES[family]
    if fresh and family is Family.ATTENTION:
        recipe = replace(recipe, learning_rate=FRESH_RATE)
    told = {
        "learning_rate": settings.learning_rate,
        "warmup_ratio": settings.warmup_ratio,
        "max_grad_norm": settings.max_grad_norm,
        "weight_decay": settings.weight_decay,
    }
    return replace(recipe, **{name: value.value for name, value in told.items() if value is not None})


def told(recipe: Recipe, family: Family, settings: Schedule) -> dict[str, Any]:
    """Return what a record tells: the settings, the family by which those were chosen that the step leaves open."""
    keys = {
        name: "".join([first, *map(str.title, rest)]) for name in asdict(recipe) for first, *rest in [name.split("_")]
    }
    return {
        "name": "AdamW",
        **{keys[name]: six_digits(value) for name, value in asdict(recipe).items()},
        "noDecay": ["norms", "biases", "embeddings"],
        "family": family.value,
        "byFamily": [key for name, key in keys.items() if getattr(settings, name) is None],
    }


def family_of(module: nn.Module, signature: Signature) -> Family:
    """Return what the module computes for an example.

    Attention: what a softmax answers weighs other activations, and layers of tokens have as many weights as recurrent
    layers and convolutions over several places. Else recurrent layers, convolutions, in that order.
    """
    seen = _Seen()
    with torch.no_grad(), seen, _rows_alone(module) as alone:
        module(*(one.to(_device_of(module)) for one in example_of(signature)))
    if Family.ATTENTION in seen.families and not _is_mostly_others(module, alone):
        return Family.ATTENTION
    return next((one for one in Family if one in seen.families and one is not Family.ATTENTION), Family.DENSE)


@contextmanager
def _rows_alone(module: nn.Module) -> Iterator[set[nn.Module]]:
    """Yield the linear layers that are given rows [batch, width], no tokens, as those of a classifier."""
    found: set[nn.Module] = set()

    def take_in(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if given and given[0].ndim < 3:
            found.add(layer)

    hooks = [one.register_forward_pre_hook(take_in) for one in module.modules() if isinstance(one, nn.Linear)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _is_mostly_others(module: nn.Module, alone: Collection[nn.Module]) -> bool:
    """Tell whether recurrent layers and convolutions over several places have more weights than what may attend."""
    others = attending = 0
    for layer in module.modules():
        count = sum(one.numel() for one in layer.parameters(recurse=False))
        if isinstance(layer, nn.RNNBase):
            others += count
        elif isinstance(layer, nn.modules.conv._ConvNd):
            # Over single places they are linear layers, of either family.
            others += count if math.prod(layer.kernel_size) > 1 else 0
        elif not isinstance(layer, KEPT) and layer not in alone:
            attending += count
    return others > attending


def grouped(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters as an optimizer takes them: norms, biases and embeddings do not decay."""
    kept = {id(one) for layer in module.modules() if isinstance(layer, KEPT) for one in layer.parameters(recurse=False)}
    named = list(module.named_parameters())
    parameters = [one for _, one in named]
    decays = [one.ndim > 1 and id(one) not in kept and not _is_kept(name, one) for name, one in named]
    groups = (
        {"params": [one for one, its in zip(parameters, decays, strict=True) if its], "weight_decay": weight_decay},
        {"params": [one for one, its in zip(parameters, decays, strict=True) if not its], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def _is_kept(name: str, parameter: nn.Parameter) -> bool:
    own = name.rpartition(".")[2]
    # A scale of channels may lie along one of several axes.
    is_vector = max(parameter.shape) == parameter.numel() and "weight" not in own
    return is_vector or any(part in own for part in KEPT_NAMES)


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which families the operations are of, whoever calls them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.families: set[Family] = set()
        #: What softmax answered: held, so that no other tensor gets their memory.
        self._weights: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if any(one in name for one in FUSED):
            self.families.add(Family.ATTENTION)
        elif "softmax" in name and "log" not in name:
            self._weights.append(result)
        elif name in {"bmm", "baddbmm"} and self._is_weighted(args):
            self.families.add(Family.ATTENTION)
        elif "convolution" in name:
            self.families.add(Family.CONVOLUTIONAL)
        elif name in {"lstm", "gru", "rnn_tanh", "rnn_relu"} or "rnn" in name or "_thnn_fused" in name:
            self.families.add(Family.RECURRENT)
        return result

    def _is_weighted(self, args: Any) -> bool:
        given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        return any(one.untyped_storage().data_ptr() in given for one in self._weights)


def _device_of(module: nn.Module) -> torch.device:
    return next((one.device for one in module.parameters()), torch.device("cpu"))
