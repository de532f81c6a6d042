"""The models that are walked: torchvision's classifiers below a size, and transformers' architectures, made small.

Weights are random, but statistics of batch norms are those of the data, no token and no head is zero, and branches are
small next to the trunk that they are added to: at the initial ones, signals of deep models vanish or overflow, or noise
of a hundredth becomes half of the answer, and nothing could be compared.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

MAX_PARAMETERS = 100_000_000
SIDES = (64, 96, 224, 299)
CLASSES = 10
SAMPLES = 32
SMALL_STD = 0.02
SMALL_BRANCH = 0.2
#: How torchvision's blocks say that they add their input to what they make of it; the shortcut is what the input takes.
ADDS_INPUT = ("use_res_connect", "apply_residual")
SHORTCUT = "downsample"
VOCABULARY, WORDS, TOKENS = 200, 12, 16

_TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 256, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_IMAGE = {
    "image_size": 64, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 256,
}  # fmt: skip
_STAGES = {"image_size": 64, "depths": [1, 1, 2]}


@dataclass(frozen=True)
class Small:
    """An architecture of transformers: the class, and the settings that make it small; the rest is the class's own."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: str = "TextClassification"


_IMAGES = "ImageClassification"
TRANSFORMERS: Mapping[str, Small] = {
    "BERT": Small("BertForSequenceClassification", _TEXT),
    "DistilBERT": Small(
        "DistilBertForSequenceClassification",
        {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "pad_token_id": 0},
    ),
    "RoBERTa": Small("RobertaForSequenceClassification", _TEXT),
    "ELECTRA": Small("ElectraForSequenceClassification", {**_TEXT, "embedding_size": 32}),
    "MiniLM": Small("BertModel", _TEXT, "Embedding"),
    "GPT-2": Small(
        "GPT2ForSequenceClassification",
        {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "pad_token_id": 0},
    ),
    "ViT": Small("ViTForImageClassification", _IMAGE, _IMAGES),
    "DeiT": Small("DeiTForImageClassification", _IMAGE, _IMAGES),
    "Swin": Small(
        "SwinForImageClassification",
        {**_STAGES, "embed_dim": 24, "num_heads": [2, 4, 8], "window_size": 4},
        _IMAGES,
    ),
    "ConvNeXt": Small(
        "ConvNextForImageClassification", {**_STAGES, "hidden_sizes": [24, 48, 96], "num_stages": 3}, _IMAGES
    ),
}


@dataclass(frozen=True)
class Laid:
    """A model and its data, written to a folder as a job would find them; the side of its images, if it takes any."""

    parameters: int
    side: int | None


def names() -> list[str]:
    """Return all models, as `library/name`."""
    return [f"torchvision/{name}" for name in _torchvision()] + [f"transformers/{name}" for name in TRANSFORMERS]


def plan_parts(name: str) -> dict[str, Any]:
    """Return the model, the task and the data of a plan whose claim `work` is the folder that `lay_out` filled."""
    library, _, name = name.partition("/")
    images = library == "torchvision" or TRANSFORMERS[name].task == _IMAGES
    return {
        "model": {
            "uri": "pvc://work/model",
            "architecture": {"torchvision": {"name": name}} if library == "torchvision" else {"huggingface": {}},
        },
        "task": _IMAGES if library == "torchvision" else TRANSFORMERS[name].task,
        "calibration": {"uri": "pvc://work/calibration.npz"}
        if images
        else {"uri": "pvc://work/calibration.jsonl", "text": ["text"], "maxLength": TOKENS},
    }


def lay_out(name: str, folder: Path, sides: Sequence[int] = SIDES) -> Laid:
    """Write the model with random weights, always the same ones, and samples of the first size that it takes."""
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    (folder / "model").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            _lay_out_torchvision(name, folder, sides)
            if library == "torchvision"
            else _lay_out_transformers(name, folder)
        )


def _torchvision() -> list[str]:
    from torchvision import models  # noqa: PLC0415 — seconds, and a part of the models only

    def parameters(name: str) -> int:
        return min(int(weights.meta["num_params"]) for weights in models.get_model_weights(name))

    return [name for name in models.list_models(module=models) if parameters(name) < MAX_PARAMETERS]


def _lay_out_torchvision(name: str, folder: Path, sides: Sequence[int]) -> Laid:
    from torchvision import models  # noqa: PLC0415

    module = models.get_model(name, weights=None).eval()
    _fill_zeros(module)
    images = _images_for(module, sides)
    _set_norms(module, images)
    save_file(
        {name: value.contiguous() for name, value in module.state_dict().items()}, folder / "model/model.safetensors"
    )
    np.savez(folder / "calibration.npz", inputs=images.numpy())
    return Laid(_count(module), images.shape[-1])


def _lay_out_transformers(name: str, folder: Path) -> Laid:
    import transformers  # noqa: PLC0415

    small = TRANSFORMERS[name]
    kind: Any = getattr(transformers, small.kind)
    module = kind(kind.config_class(num_labels=CLASSES, **small.settings))
    _fill_zeros(module)
    module.save_pretrained(folder / "model")
    if small.task == _IMAGES:
        side = small.settings["image_size"]
        np.savez(folder / "calibration.npz", inputs=_images(side).numpy())
        return Laid(_count(module), side)
    _write_texts(folder, VOCABULARY, WORDS)
    return Laid(_count(module), None)


def lay_out_bert(settings: Mapping[str, Any], folder: Path, words: int) -> Laid:
    """Write a classifier of these settings with random weights, always the same ones, and texts of so many words."""
    import transformers  # noqa: PLC0415

    torch.manual_seed(0)
    kind: Any = transformers.BertForSequenceClassification
    module = kind(kind.config_class(num_labels=CLASSES, **settings))
    module.save_pretrained(folder / "model")
    _write_texts(folder, settings["vocab_size"], words)
    return Laid(_count(module), None)


def _write_texts(folder: Path, vocabulary: int, length: int) -> None:
    _write_tokenizer(folder / "model/tokenizer.json", vocabulary)
    words = np.random.default_rng(1).integers(2, vocabulary, (SAMPLES, length))
    lines = [json.dumps({"text": " ".join(f"w{word}" for word in row)}) for row in words]
    (folder / "calibration.jsonl").write_text("\n".join(lines))


def _images(side: int) -> torch.Tensor:
    return torch.randn((SAMPLES, 3, side, side), generator=torch.Generator().manual_seed(1))


def _images_for(module: nn.Module, sides: Sequence[int]) -> torch.Tensor:
    for side in sides:
        images = _images(side)
        try:
            with torch.no_grad():
                module(images[:2])
        except (RuntimeError, ValueError, AssertionError) as error:
            refused = error
            continue
        return images
    raise ValueError(f"images of no side of {list(sides)} are taken: {refused}")


def _fill_zeros(module: nn.Module) -> None:
    """Draw what begins at zero: of such tokens int8 sees its own rounding, and by such heads all answers are zero."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=SMALL_STD)


def _set_norms(module: nn.Module, images: torch.Tensor) -> None:
    for norm in _ends_of_branches(module):
        nn.init.constant_(norm.weight, SMALL_BRANCH)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        module(images)


def _ends_of_branches(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    for block in module.modules():
        if hasattr(block, SHORTCUT) or any(getattr(block, name, False) for name in ADDS_INPUT):
            norms = [
                layer
                for name, layer in block.named_modules()
                if isinstance(layer, nn.BatchNorm2d) and not name.startswith(SHORTCUT)
            ]
            yield from norms[-1:]


def _write_tokenizer(file: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{number}": number for number in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 — a word
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
