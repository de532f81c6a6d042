"""Models that lay tokens out in different ways, and samples of which some tokens are padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tests.jobimage.huggingface import LENGTH, WORDS
from torch import nn

from plimsoll_job.figures import has_weight
from plimsoll_job.load.data import Samples


def padded_samples(count: int = 64, shortest: int = 3) -> Samples:
    chance = np.random.default_rng(0)
    mask = (np.arange(LENGTH) < chance.integers(shortest, LENGTH + 1, count)[:, None]).astype(np.int64)
    words = chance.integers(3, WORDS, mask.shape) * mask
    return Samples({"input_ids": words, "attention_mask": mask}, None, "")


def layers_of(module: nn.Module) -> list[str]:
    """Return the names of what layers read, as observers name it."""
    attention = [name for name, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)]
    return [
        *(name for name, layer in module.named_modules() if has_weight(layer) and not name.endswith("attn.out_proj")),
        *(f"{name}.{one}" for name in attention for one in ("query", "key", "value")),
    ]


class Wrapped(nn.Module):
    """A model of transformers that answers with one tensor."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(input_ids=input_ids, attention_mask=attention_mask)[0]
        return answers


class Encoder(nn.Module):
    """torch's own encoder layers behind a layer that reads all tokens side by side."""

    def __init__(self, *, batch_first: bool = True, with_class: bool = False, pool: str = "first") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first, self.pool = batch_first, pool
        self.words = nn.Embedding(WORDS, 32)
        self.of_class = nn.Parameter(torch.randn(1, 1, 32)) if with_class else None
        self.flat = nn.Linear(32, 32)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=batch_first) for _ in range(2)
        )
        self.head = nn.Linear(32, 3)
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        words, mask = self.words(input_ids), attention_mask
        words = self.flat(words.reshape(-1, 32)).reshape(words.shape)
        if self.of_class is not None:
            words = torch.cat([self.of_class.expand(len(words), 1, 32), words], dim=1)
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        if not self.batch_first:
            words = words.transpose(0, 1)
        for layer in self.layers:
            words = layer(words, src_key_padding_mask=mask == 0)
        if not self.batch_first:
            words = words.transpose(0, 1)
        if self.pool == "mean":
            words = words.mean(dim=1)
        elif self.pool == "masked mean":
            words = (words * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        elif self.pool == "first":
            words = words[:, 0]
        answers: torch.Tensor = self.head(words)
        return answers


class Reader(nn.Module):
    """A recurrent layer that reads the whole row both ways, or what counts of it."""

    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.before, self.packed = nn.Embedding(WORDS, 16), nn.Linear(16, 16), packed
        self.memory = nn.LSTM(16, 8, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 3)
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        words: Any = self.before(self.words(input_ids))
        if self.packed:
            lengths = attention_mask.sum(dim=1)
            words = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        ends = self.memory(words)[1][0]
        answers: torch.Tensor = self.head(torch.cat([ends[0], ends[1]], dim=1))
        return answers
