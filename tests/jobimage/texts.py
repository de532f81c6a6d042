"""A small transformer of two inputs, and sentences for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Input, Signature

VOCABULARY, LENGTH = 500, 12
TEXT: Signature = (Input("input_ids", (LENGTH,), "int64", VOCABULARY), Input("attention_mask", (LENGTH,), "int64", 2))


class TinyBert(nn.Module):
    """Two layers of attention over embeddings: [batch, 4] from words and their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 64)
        self.places = nn.Parameter(torch.randn(LENGTH, 64) * 0.1)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(64, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.words(input_ids) + self.places
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        logits: torch.Tensor = self.head(hidden[:, 0])
        return logits


class Block(nn.Module):
    """Attention of one head and a feed-forward part, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(64, 64) for _ in range(3))
        self.wide, self.narrow = nn.Linear(64, 128), nn.Linear(128, 64)
        self.norm = nn.LayerNorm(64)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / 8
        weights = scores.masked_fill(mask[:, None, :] == 0, -1e4).softmax(dim=2)
        hidden = self.norm(hidden + weights @ self.value(hidden))
        output: torch.Tensor = hidden + self.narrow(nn.functional.gelu(self.wide(hidden)))
        return output


def tiny_bert() -> nn.Module:
    torch.manual_seed(0)
    return TinyBert().eval()


def sentences(count: int = 64) -> Samples:
    chance = np.random.default_rng(0)
    lengths = chance.integers(3, LENGTH + 1, count)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    words = chance.integers(0, VOCABULARY, (count, LENGTH)) * mask
    return Samples({"input_ids": words, "attention_mask": mask}, None, digest="sha256:" + "0" * 64)


#: A tokenizer of 64 words, w0 to w63, as its JSON; a word is its number, and w0 the padding.
WORD_LEVEL = json.dumps(
    {
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {f"w{one}": one for one in range(64)}, "unk_token": "w1"},
    }
)


def tagged(count: int, seed: int) -> list[dict[str, Any]]:
    """Return sentences as words with their tags: by the number of the word, and 2 for each after one of the first."""
    chance = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = chance.integers(2, 64, chance.integers(3, LENGTH + 1)).tolist()
        tags = [2 if at and words[at - 1] < 16 else word % 2 for at, word in enumerate(words)]
        lines.append({"words": [f"w{word}" for word in words], "tags": tags})
    return lines
