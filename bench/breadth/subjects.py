"""The models that are walked: torchvision's classifiers below a size, and transformers' architectures, made small.

Weights are random, but statistics of batch norms are those of the data: at the initial ones, signals of deep models
vanish or overflow, and nothing could be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

MAX_PARAMETERS = 100_000_000
SIDES = (64, 96, 224, 299)
CLASSES = 10
SAMPLES = 32

_IMAGE = {"image_size": 64, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_STAGES = {"image_size": 64, "depths": [1, 1, 2]}

#: Classifiers of transformers: the class, and the config that makes it small; the rest is as the class has it.
TRANSFORMERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", {**_IMAGE, "intermediate_size": 256}),
    "DeiT": ("DeiTForImageClassification", {**_IMAGE, "intermediate_size": 256}),
    "Swin": ("SwinForImageClassification", {**_STAGES, "embed_dim": 24, "num_heads": [2, 4, 8], "window_size": 4}),
    "ConvNeXt": ("ConvNextForImageClassification", {**_STAGES, "hidden_sizes": [24, 48, 96], "num_stages": 3}),
}


def names() -> list[str]:
    """Return all models, as `library/name`."""
    return [f"torchvision/{name}" for name in _torchvision()] + [f"transformers/{name}" for name in TRANSFORMERS]


def factory_of(name: str) -> str:
    """Return how a plan names the model's architecture."""
    return f"bench.breadth.subjects:{name.replace('/', '__')}"


def __getattr__(attribute: str) -> Any:
    """Return the factory of one model: plans name factories as attributes of a module."""
    library, separator, name = attribute.partition("__")
    if not (library and separator):
        raise AttributeError(attribute)
    return lambda: build(f"{library}/{name}")


def build(name: str) -> nn.Module:
    """Return the model with random weights, always the same ones, in evaluation mode."""
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (_torchvision_model(name) if library == "torchvision" else _transformers_model(name)).eval()


def samples_for(module: nn.Module) -> torch.Tensor:
    """Return images of the smallest size that the module takes, after setting its batch norms' statistics to theirs."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for side in SIDES:
        images = torch.randn((SAMPLES, 3, side, side), generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                module(images[:2])
        except (RuntimeError, ValueError, AssertionError) as error:
            refused = error
            continue
        for norm in norms:
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            module(images)
        module.eval()
        return images
    raise ValueError(f"images of no side of {SIDES} are taken: {refused}")


def _torchvision() -> list[str]:
    from torchvision import models  # noqa: PLC0415 — seconds, and a part of the models only

    def parameters(name: str) -> int:
        return min(int(weights.meta["num_params"]) for weights in models.get_model_weights(name))

    return [name for name in models.list_models(module=models) if parameters(name) < MAX_PARAMETERS]


def _torchvision_model(name: str) -> nn.Module:
    from torchvision import models  # noqa: PLC0415

    module: nn.Module = models.get_model(name, weights=None)
    return module


def _transformers_model(name: str) -> nn.Module:
    import transformers  # noqa: PLC0415

    class_name, settings = TRANSFORMERS[name]
    kind: Any = getattr(transformers, class_name)
    return _Logits(kind(kind.config_class(num_labels=CLASSES, **settings)))


class _Logits(nn.Module):
    """A classifier of transformers that returns its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images).logits
        return logits
