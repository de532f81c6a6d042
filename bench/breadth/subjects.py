"""The models that are walked: timm's and torchvision's below a size, and transformers' architectures, made small."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.breadth.counted import timm_models

#: Of timm's models, and of torchvision's.
MOST_PARAMETERS = {"timm": 30_000_000, "torchvision": 100_000_000}
#: Names of timm's own toys, which stand for no family.
TOY = "test_"
CLASSES = 10
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


IMAGES = "ImageClassification"
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
    "ViT": Small("ViTForImageClassification", _IMAGE, IMAGES),
    "DeiT": Small("DeiTForImageClassification", _IMAGE, IMAGES),
    "Swin": Small(
        "SwinForImageClassification",
        {**_STAGES, "embed_dim": 24, "num_heads": [2, 4, 8], "window_size": 4},
        IMAGES,
    ),
    "ConvNeXt": Small(
        "ConvNextForImageClassification", {**_STAGES, "hidden_sizes": [24, 48, 96], "num_stages": 3}, IMAGES
    ),
}


@dataclass(frozen=True)
class Subject:
    """A model to walk, as `library/name`, and its family: the module of the library that defines it."""

    name: str
    family: str
    parameters: int = 0


def subjects() -> list[Subject]:
    """Return all models, one of each family first, then another of each: an interrupted walk has seen most kinds."""
    return in_rounds([*_timm(), *_torchvision(), *(Subject(f"transformers/{one}", one) for one in TRANSFORMERS)])


def in_rounds(given: Iterable[Subject]) -> list[Subject]:
    """Return the smallest of each family, then the second of each, and so on; toys stand last of their family."""
    families: dict[str, list[Subject]] = defaultdict(list)
    for one in given:
        families[one.family].append(one)
    ranked = [
        (rank, number, one)
        for number, family in enumerate(families.values())
        for rank, one in enumerate(sorted(family, key=lambda one: (TOY in one.name, one.parameters)))
    ]
    return [one for *_, one in sorted(ranked, key=lambda each: each[:2])]


def firsts(ordered: Iterable[Subject]) -> set[str]:
    """Return the names of the first model of each family."""
    first: dict[str, str] = {}
    for one in ordered:
        first.setdefault(one.family, one.name)
    return set(first.values())


def plan_parts(name: str) -> dict[str, Any]:
    """Return the model, the task and the data of a plan whose claim `work` is the folder that `lay_out` filled."""
    library, _, name = name.partition("/")
    named = library != "transformers"
    images = named or TRANSFORMERS[name].task == IMAGES
    return {
        "model": {
            "uri": "pvc://work/model",
            "architecture": {library: {"name": name}} if named else {"huggingface": {}},
        },
        "task": IMAGES if named else TRANSFORMERS[name].task,
        "calibration": {"uri": "pvc://work/calibration.npz"}
        if images
        else {"uri": "pvc://work/calibration.jsonl", "text": ["text"], "maxLength": TOKENS},
    }


def _timm() -> list[Subject]:
    return [
        Subject(f"timm/{one.name}", f"timm {one.family}", one.parameters)
        for one in timm_models()
        if one.parameters is not None and one.parameters < MOST_PARAMETERS["timm"]
    ]


def _torchvision() -> list[Subject]:
    from torchvision import models  # noqa: PLC0415 — seconds, and a part of the models only

    found = []
    for name in models.list_models(module=models):
        parameters = min(int(weights.meta["num_params"]) for weights in models.get_model_weights(name))
        if parameters < MOST_PARAMETERS["torchvision"]:
            family = models.get_model_builder(name).__module__.rpartition(".")[2]
            found.append(Subject(f"torchvision/{name}", f"torchvision {family}", parameters))
    return found
