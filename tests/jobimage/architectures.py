"""Small models of the families that people have, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
import transformers
from torch import nn

from plimsoll_job.load.inputs import Input, Signature, single


class Text(nn.Module):
    """A model of transformers that takes text, as the job image calls it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(input_ids=input_ids, attention_mask=attention_mask)[0]
        return answer


class Image(nn.Module):
    """A model of transformers that takes images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(pixel_values=pixel_values)[0]
        return answer


TEXT: Signature = (Input("input_ids", (16,), "int64", 100), Input("attention_mask", (16,), "int64", 2))
_WIDTHS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_WORDS = _WIDTHS | {"vocab_size": 100, "max_position_embeddings": 40, "num_labels": 5}
_PATCHES = _WIDTHS | {"image_size": 32, "patch_size": 8, "num_labels": 5}


def _transformer(family: str, head: str, wrap: type[nn.Module], **config: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = getattr(transformers, f"{family}{head}")(getattr(transformers, f"{family}Config")(**config))
        return wrap(model).eval()

    return build


_CLASSES, _PICTURES = "ForSequenceClassification", "ForImageClassification"
_DISTILBERT = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 100, "num_labels": 5}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 40, "num_labels": 5}
_SWIN = {"image_size": 64, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "num_labels": 5}
_CONVNEXT = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_labels": 5}

TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], Signature]] = {
    "bert": (_transformer("Bert", _CLASSES, Text, **_WORDS), TEXT),
    "distilbert": (_transformer("DistilBert", _CLASSES, Text, max_position_embeddings=40, **_DISTILBERT), TEXT),
    "roberta": (_transformer("Roberta", _CLASSES, Text, **_WORDS), TEXT),
    "electra": (_transformer("Electra", _CLASSES, Text, embedding_size=32, **_WORDS), TEXT),
    "minilm": (_transformer("Bert", "Model", Text, **_WORDS), TEXT),
    "gpt2": (_transformer("GPT2", _CLASSES, Text, pad_token_id=0, bos_token_id=1, eos_token_id=2, **_GPT2), TEXT),
    "vit": (_transformer("ViT", _PICTURES, Image, **_PATCHES), single((3, 32, 32))),
    "deit": (_transformer("DeiT", _PICTURES, Image, **_PATCHES), single((3, 32, 32))),
    "swin": (_transformer("Swin", _PICTURES, Image, **_SWIN), single((3, 64, 64))),
    "convnext": (_transformer("ConvNext", _PICTURES, Image, **_CONVNEXT), single((3, 64, 64))),
}


def _classifier(name: str, **options: object) -> tuple[Callable[[], nn.Module], Signature]:
    return lambda: torchvision.models.get_model(name, num_classes=10, **options).eval(), single((3, 64, 64))


CLASSIFIERS = {
    name: _classifier(name)
    for name in (
        "resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "efficientnet_b0",
        "convnext_tiny", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf", "swin_t", "swin_v2_t",
    )
} | {
    "googlenet": _classifier("googlenet", aux_logits=False, init_weights=False),
    "vit_b_16": _classifier("vit_b_16", image_size=64),
}  # fmt: skip
