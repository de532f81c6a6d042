"""A text model of a Hugging Face directory as sentence-transformers uses it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel


class Embedder(nn.Module):
    """Vectors of length 1 [batch, width] of tokens and their mask [batch, length]: the mean over the tokens."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        # Fused attention hides its products from those that trace.
        self.model = AutoModel.from_pretrained(
            directory, local_files_only=True, attn_implementation="eager", add_pooling_layer=False
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the vectors."""
        tokens = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return nn.functional.normalize((tokens * weight).sum(dim=1) / weight.sum(dim=1), dim=1)
