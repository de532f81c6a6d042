"""Modules of transformers as modules that take tensors by position and answer with one tensor.

The model is the attribute `model`: without that prefix the names of the weights are those that transformers gives them.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import nn
from torch.nn import functional

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


class TextLogits(nn.Module):
    """Logits [batch, classes] of tokens and their mask [batch, length]; `vocabulary` tokens are known."""

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class TextEmbedding(nn.Module):
    """Vectors [batch, width] of tokens and their mask [batch, length]; `vocabulary` tokens are known."""

    def __init__(self, model: nn.Module, vocabulary: int, pooling: Pooling, *, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the vectors, of length 1 when they are normalised."""
        tokens = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling is Pooling.FIRST:
            pooled = tokens[:, 0]
        else:
            weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
            pooled = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(pooled, dim=1) if self.normalize else pooled
