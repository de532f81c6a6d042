"""Small models of transformers with random weights, saved as directories and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from plimsoll_api.spec import Architecture, ModelSource
from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.load.model import SourceModel, load_model
from plimsoll_job.load.store import Store

WORDS, LENGTH = 50, 12
TEXT: Signature = (
    Input("input_ids", (LENGTH,), "int64", WORDS, any_length=True),
    Input("attention_mask", (LENGTH,), "int64", 2, any_length=True),
)
IMAGE = single((3, 32, 32))
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": WORDS,
    "max_position_embeddings": 40, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8, "num_labels": 3,
}  # fmt: skip
TEXT_MODELS = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "Electra": SIZES | {"embedding_size": 32},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": WORDS, "num_labels": 3},
    "MPNet": SIZES,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": WORDS, "num_labels": 3, "n_positions": 40,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}  # fmt: skip
IMAGE_MODELS = {
    "ViT": VISION,
    "DeiT": VISION,
    "Swin": {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
             "window_size": 4, "num_labels": 3},
    "ConvNext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "num_labels": 3},
    "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "num_labels": 3},
}  # fmt: skip


def made(name: str, head: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    return getattr(transformers, f"{name}{head}")(config).eval()


def save(directory: Path, model: Any, **options: Any) -> Path:
    target = directory / "models" / "given"
    model.save_pretrained(target, **options)
    return target


def load(directory: Path, task: str, **changes: Any) -> SourceModel:
    value = {"uri": "pvc://models/given", "architecture": Architecture.model_validate({"huggingface": {}})} | changes
    return load_model(ModelSource.model_validate(value), Store(claims=directory), task)
