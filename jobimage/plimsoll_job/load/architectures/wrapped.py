"""Modules of transformers as modules that take tensors by position and answer with one tensor.

The model is the attribute `model`: without that prefix the names of the weights are those that transformers gives them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS, TOKENS

PREFIX = "model."


class Pooling(StrEnum):
    """How one vector is made of those of the tokens."""

    MEAN = "mean"
    FIRST = "first"


class ImageLogits(nn.Module):
    """Logits [batch, classes] of images [batch, channels, height, width]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class TextModel(nn.Module):
    """A model of tokens and their mask [batch, length]; `vocabulary` tokens are known.

    `input_names` holds token_type_ids where the model tells the texts of a pair apart by them.
    """

    def __init__(self, model: nn.Module, vocabulary: int, *, typed: bool) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        self.input_names = TOKENS if typed else (INPUT_IDS, ATTENTION_MASK)

    def ask(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None) -> Any:
        """Return what transformers' model answers; without types all tokens are of the first text."""
        typed = {} if types is None else {TOKEN_TYPE_IDS: types}
        return self.model(input_ids=ids, attention_mask=mask, **typed)


class TextLogits(TextModel):
    """Logits [batch, classes] of texts, or [batch, length, classes] of their tokens."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.ask(input_ids, attention_mask, token_type_ids).logits
        return logits


class TextEmbedding(TextModel):
    """Vectors [batch, width] of texts."""

    def __init__(self, model: nn.Module, vocabulary: int, pooling: Pooling, *, typed: bool, normalize: bool) -> None:
        super().__init__(model, vocabulary, typed=typed)
        self.pooling = pooling
        self.normalize = normalize

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the vectors, of length 1 when they are normalised."""
        hidden = self.ask(input_ids, attention_mask, token_type_ids).last_hidden_state
        if self.pooling is Pooling.FIRST:
            pooled = hidden[:, 0]
        else:
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(pooled, dim=1) if self.normalize else pooled
