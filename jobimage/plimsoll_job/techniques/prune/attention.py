"""Attention: its heads can go, each as a whole: rows of the query, key and value projections, columns of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

#: What the projections of an attention are called: transformers, torch (as plain layers), timm, GPT-2.
READERS = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("qkv",),
    ("c_attn",),
)
WRITERS = ("o_proj", "out_lin", "out_proj", "proj", "c_proj")
#: BERT and its kin hold the output projection beside the attention.
WRITER_BESIDE = "output.dense"
COUNTS = ("num_attention_heads", "num_heads", "n_heads")
#: What an attention may remember of the width of all its heads.
WIDTHS = ("all_head_size", "attn_dim", "split_size")
#: Parameters of an attention, wherever below it, that have an entry a head, by the axis on which they do.
OF_HEADS = {"relative_position_bias_table": 1, "logit_scale": 0}
#: The layer of an attention that answers with a number a head.
ANSWERS_HEADS = "cpb_mlp.2"


@dataclass(frozen=True)
class Attention:
    """One attention by the names of its parts; `reads` are its three projections, or the one that holds all three."""

    owner: str
    reads: tuple[str, ...]
    writes: str
    head_count: int
    head_width: int

    @property
    def root(self) -> str:
        """The layer by which cuts name the attention."""
        return self.reads[0]

    @property
    def width(self) -> int:
        """The channels of all heads."""
        return self.head_count * self.head_width


def attention_owners(module: nn.Module) -> list[nn.Module]:
    """Return all modules that are an attention by their looks, whether their heads can go or not."""
    return [
        owner
        for owner in module.modules()
        if any(isinstance(getattr(owner, attribute, None), int) for attribute in COUNTS)
        and sum(isinstance(child, nn.Linear) for child in owner.children()) > 1
    ]


def find_attentions(module: nn.Module) -> list[Attention]:
    """Return the attentions whose heads can go, in the order of the module."""
    return list(_attentions(module))


def _attentions(module: nn.Module) -> Iterator[Attention]:
    layers = dict(module.named_modules())
    for name, owner in layers.items():
        count = next((getattr(owner, attribute) for attribute in COUNTS if hasattr(owner, attribute)), None)
        prefix = f"{name}." if name else ""
        reads = next(
            (names for names in READERS if all(isinstance(layers.get(prefix + one), nn.Linear) for one in names)), None
        )
        beside = f"{name.rpartition('.')[0]}.{WRITER_BESIDE}".lstrip(".")
        writers = [*(prefix + one for one in WRITERS), beside]
        writes = next((one for one in writers if isinstance(layers.get(one), nn.Linear)), None)
        if not isinstance(count, int) or reads is None or writes is None:
            continue
        width = layers[writes].in_features
        rows = [layers[prefix + one].out_features for one in reads]
        # Shared keys and values, and projections of other widths, are left as they are.
        if rows == [width * 3 // len(reads)] * len(reads) and width % count == 0:
            yield Attention(name, tuple(prefix + one for one in reads), writes, count, width // count)


def cut_heads(module: nn.Module, attention: Attention, channels: Sequence[int]) -> None:
    """Delete, in place, the heads whose channels these are, and correct what the attention remembers of them."""
    gone = set(channels)
    kept = [channel for channel in range(attention.width) if channel not in gone]
    heads = [kept[first] // attention.head_width for first in range(0, len(kept), attention.head_width)]
    parts = 3 // len(attention.reads)
    for name in attention.reads:
        rows = [part * attention.width + channel for part in range(parts) for channel in kept]
        _keep(module.get_submodule(name), rows, axis=0)
    _keep(module.get_submodule(attention.writes), kept, axis=1)
    owner = module.get_submodule(attention.owner)
    for attribute in COUNTS:
        if hasattr(owner, attribute):
            setattr(owner, attribute, len(heads))
    for attribute in WIDTHS:
        if hasattr(owner, attribute):
            setattr(owner, attribute, len(kept))
    if (layer := dict(owner.named_modules()).get(ANSWERS_HEADS)) is not None:
        _keep(layer, heads, axis=0)
    for holder in owner.modules():
        for name, table in list(holder.named_parameters(recurse=False)):
            if name in OF_HEADS:
                kept_of = table.detach().index_select(OF_HEADS[name], torch.tensor(heads))
                setattr(holder, name, nn.Parameter(kept_of, table.requires_grad))


def _keep(layer: nn.Module, positions: Sequence[int], axis: int) -> None:
    assert isinstance(layer, nn.Linear)  # noqa: S101 — projections are linear layers
    index = torch.tensor(positions)
    layer.weight = nn.Parameter(layer.weight.detach().index_select(axis, index), layer.weight.requires_grad)
    if axis == 0:
        layer.out_features = len(positions)
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[index], layer.bias.requires_grad)
    else:
        layer.in_features = len(positions)
