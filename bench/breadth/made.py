"""A model with random weights and samples for it, written to a folder as a job would find them.

Statistics of batch norms are those of the data, no token and no head is zero, and branches are small next to the trunk
that they are added to: at the initial weights, signals of deep models vanish or overflow, or noise of a hundredth
becomes half of the answer, and nothing could be compared.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.breadth.subjects import CLASSES, IMAGES, TRANSFORMERS, VOCABULARY, WORDS
from safetensors.torch import save_file
from torch import nn

from plimsoll_api.spec import NamedArchitecture
from plimsoll_job.load.architectures.named import build_timm

#: Sides of images that are tried, the smallest first, before a model's own.
SIDES = (64, 96, 224)
#: What torchvision's models are trained on, but for Inception v3.
TORCHVISION_SIDE = 224
SAMPLES = 32
SMALL_STD = 0.02
SMALL_BRANCH = 0.2
#: How blocks say that they add their input to what they make of it, in torchvision and timm; the shortcut is what the
#: input takes.
ADDS_INPUT = ("use_res_connect", "apply_residual", "has_skip", "drop_path")
SHORTCUT = "downsample"


@dataclass(frozen=True)
class Laid:
    """A model and its data in a folder; the side of its images, if it takes any."""

    parameters: int
    side: int | None


def lay_out(name: str, folder: Path, sides: Sequence[int] = SIDES) -> Laid:
    """Write the model with random weights, always the same ones, and samples of the first size that it takes.

    Without sides they are as large as the library says that the model wants them.
    """
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    (folder / "model").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "transformers":
            return _lay_out_transformers(name, folder)
        return _lay_out_named(*_BUILT[library](name), folder, sides)


def _torchvision(name: str) -> tuple[nn.Module, int]:
    from torchvision import models  # noqa: PLC0415 — seconds, and a part of the models only

    return models.get_model(name, weights=None), TORCHVISION_SIDE


def _timm(name: str) -> tuple[nn.Module, int]:
    module = build_timm(NamedArchitecture(name=name))
    settings: Any = module.default_cfg
    return module, int(settings["input_size"][-1])


_BUILT: Mapping[str, Callable[[str], tuple[nn.Module, int]]] = {"torchvision": _torchvision, "timm": _timm}


def _lay_out_named(module: nn.Module, own_side: int, folder: Path, sides: Sequence[int]) -> Laid:
    module.eval()
    _fill_zeros(module)
    images = _images_for(module, [*(side for side in sides if side < own_side), own_side])
    _set_norms(module, images)
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(weights, folder / "model/model.safetensors")
    np.savez(folder / "calibration.npz", inputs=images.numpy())
    return Laid(_count(module), images.shape[-1])


def _lay_out_transformers(name: str, folder: Path) -> Laid:
    import transformers  # noqa: PLC0415

    small = TRANSFORMERS[name]
    kind: Any = getattr(transformers, small.kind)
    module = kind(kind.config_class(num_labels=CLASSES, **small.settings))
    _fill_zeros(module)
    module.save_pretrained(folder / "model")
    if small.task == IMAGES:
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
    refused: object = None
    for side in sides:
        images = _images(side)
        try:
            with torch.no_grad():
                answers = module(images[:2])
        # Sizes that do not fit stop a module in any way.
        except Exception as error:
            refused = error
            continue
        if bool(answers.isfinite().all()):
            return images
        refused = "its answers are no finite numbers"
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
