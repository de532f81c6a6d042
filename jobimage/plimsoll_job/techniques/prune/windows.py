"""Attention within shifted windows, which may have fewer heads than its width.

Liu et al. 2021 (arXiv 2103.14030), and 2022 (arXiv 2111.09883) for scores by the cosine.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

#: What torchvision adds to the scores of places that the shift alone brought into one window.
APART = -100.0
#: Where torchvision caps the logarithm of a head's scale.
MOST_LOGIT = math.log(100.0)


class WindowAttention(nn.Module):
    """torchvision's ShiftedWindowAttention, but the width of a head is its own, not a share of the input's.

    Takes and returns [batch, height, width, channels]. The names of the weights are the same.
    """

    relative_position_index: torch.Tensor

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim = source.num_heads, source.proj.in_features // source.num_heads
        self.window_size, self.shift_size = tuple(source.window_size), tuple(source.shift_size)
        self.attention_dropout, self.dropout = source.attention_dropout, source.dropout
        self.qkv, self.proj = source.qkv, source.proj
        self._keep_distances(source)
        self.register_buffer("relative_position_index", source.relative_position_index)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Attend within each window of the images, which are shifted for it where there are several."""
        # Numbers, where a trace has tensors: the sizes of images are fixed in what is exported.
        height, width = int(images.shape[1]), int(images.shape[2])
        rows, columns = self.window_size
        padded = functional.pad(images, (0, 0, 0, -width % columns, 0, -height % rows))
        tall, wide = height + -height % rows, width + -width % columns
        down, right = (
            shift if window < size else 0
            for shift, window, size in zip(self.shift_size, self.window_size, (tall, wide), strict=True)
        )
        shifted = torch.roll(padded, (-down, -right), (1, 2))
        places = self._windows(shifted, tall, wide).flatten(2, 3)
        queries, keys, values = (
            torch.unflatten(part, -1, (self.num_heads, self.head_dim)).transpose(-3, -2)
            for part in self.qkv(places).chunk(3, dim=-1)
        )
        scores = self._scores(queries, keys) + self._bias()
        if down or right:
            # Their sum would be folded into one constant, of all windows times all heads.
            scores = scores + self._apart(tall, wide, down, right)
        weights = functional.dropout(scores.softmax(dim=-1), self.attention_dropout, self.training)
        attended = (weights @ values).transpose(-3, -2).flatten(-2)
        answers = functional.dropout(self.proj(attended), self.dropout, self.training)
        windows = torch.unflatten(torch.unflatten(answers, 2, (rows, columns)), 1, (tall // rows, wide // columns))
        together = windows.transpose(2, 3).flatten(1, 2).flatten(2, 3)
        return torch.roll(together, (down, right), (1, 2))[:, :height, :width].contiguous()

    def _keep_distances(self, source: Any) -> None:
        """Keep what tells how the distance of two places counts."""
        self.relative_position_bias_table = source.relative_position_bias_table

    def _of_distances(self) -> torch.Tensor:
        """Return what is added to the scores for each distance of two places, [distances, heads]."""
        table: torch.Tensor = self.relative_position_bias_table
        return table

    def _scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return how much each place asks of each, [batch, windows, heads, places, places]."""
        scores: torch.Tensor = queries * self.head_dim**-0.5 @ keys.transpose(-2, -1)
        return scores

    def _windows(self, images: torch.Tensor, tall: int, wide: int) -> torch.Tensor:
        """Return the images cut into windows, [batch, windows, rows, columns, channels]."""
        rows, columns = self.window_size
        parts = torch.unflatten(images, 1, (tall // rows, rows))
        return torch.unflatten(parts, 3, (wide // columns, columns)).transpose(2, 3).flatten(1, 2)

    def _bias(self) -> torch.Tensor:
        """Return what is added to the scores of each two places, [heads, places, places]."""
        count = self.window_size[0] * self.window_size[1]
        return self._of_distances()[self.relative_position_index].view(count, count, -1).permute(2, 0, 1)

    def _apart(self, tall: int, wide: int, down: int, right: int) -> torch.Tensor:
        """Return what keeps apart what was apart before the shift, [windows, 1, places, places]."""
        device = self.relative_position_index.device
        of_rows, of_columns = (
            # Windows at the far end hold what was there, and what the shift brought around.
            ((at >= size - window).int() + (at >= size - shift).int()) * (shift > 0)
            for at, size, window, shift in (
                (torch.arange(tall, device=device), tall, self.window_size[0], down),
                (torch.arange(wide, device=device), wide, self.window_size[1], right),
            )
        )
        parts = self._windows((3 * of_rows[:, None] + of_columns)[None, ..., None], tall, wide).flatten(2)[0]
        return ((parts[:, None] != parts[:, :, None]) * APART)[:, None]


class CosineWindowAttention(WindowAttention):
    """torchvision's ShiftedWindowAttentionV2: scores are cosines of queries and keys, by a scale for each head.

    A small network tells how a distance counts.
    """

    relative_coords_table: torch.Tensor

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.logit_scale = source.logit_scale
        if self.qkv.bias is not None:
            # It reads its keys without their biases.
            with torch.no_grad():
                self.qkv.bias.view(3, -1)[1].zero_()

    def _keep_distances(self, source: Any) -> None:
        self.cpb_mlp = source.cpb_mlp
        self.register_buffer("relative_coords_table", source.relative_coords_table)

    def _of_distances(self) -> torch.Tensor:
        answers: torch.Tensor = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        return 16 * answers.sigmoid()

    def _scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        cosines = functional.normalize(queries, dim=-1) @ functional.normalize(keys, dim=-1).transpose(-2, -1)
        scale: torch.Tensor = self.logit_scale
        return cosines * scale.clamp(max=MOST_LOGIT).exp()


#: What stands for which attention of torchvision.
PLAIN = {"ShiftedWindowAttention": WindowAttention, "ShiftedWindowAttentionV2": CosineWindowAttention}


def is_window_attention(layer: nn.Module) -> bool:
    """Return whether the layer is the attention of torchvision's Swin or SwinV2."""
    # By name: torchvision takes a second to import, and most models are not of it.
    kind = type(layer)
    return kind.__module__ == "torchvision.models.swin_transformer" and kind.__name__ in PLAIN


def plain_window_attention(layer: nn.Module) -> WindowAttention:
    """Return what answers as this attention of torchvision does, and calls its layers."""
    return PLAIN[type(layer).__name__](layer)
