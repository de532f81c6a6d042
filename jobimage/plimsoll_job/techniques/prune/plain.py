"""Plain layers in the place of those that hide a projection: what is pruned can then be seen and cut like any other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from plimsoll_job.figures import is_transposed
from plimsoll_job.techniques.prune.windows import is_window_attention, plain_window_attention

#: The projections of torch's attention, in the order of its weight.
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def put_plain_layers(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Put linear layers in the place of those of torch's attention and of GPT-2's transposed ones.

    The attention of torchvision's Swin and SwinV2, which reads the weights of its layers, calls them instead.
    The module answers as before, and the names of the new weights follow from the old ones alone. A layer of several
    names stays one, and weights that layers share stay shared. Returns the names of the weights that one became, by its
    name, where they are others.
    """
    renamed: dict[str, tuple[str, ...]] = {}
    made: dict[nn.Module, nn.Module] = {}
    held: dict[tuple[int, ...], nn.Parameter] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if name and _is_hidden(layer):
            parent, _, own = name.rpartition(".")
            if layer not in made:
                made[layer] = _plain(layer).train(layer.training)
                _share(layer, made[layer], held)
            setattr(module.get_submodule(parent), own, made[layer])
            if isinstance(layer, nn.MultiheadAttention):
                renamed[f"{name}.in_proj_weight"] = tuple(f"{name}.{one}.weight" for one in PROJECTIONS)
    return renamed


def _share(layer: nn.Module, plain: nn.Module, held: dict[tuple[int, ...], nn.Parameter]) -> None:
    """Let the plain layer have the weights that another was made of the same tensors, in the same order."""
    sources = tuple(id(one) for one in layer.parameters())
    for place, (name, parameter) in enumerate(list(plain.named_parameters())):
        owner, _, own = name.rpartition(".")
        shared = held.setdefault((*sources, place), parameter)
        if shared is not parameter:
            setattr(plain.get_submodule(owner), own, shared)


def _is_hidden(layer: nn.Module) -> bool:
    if type(layer) is nn.MultiheadAttention:
        return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn
    return is_window_attention(layer) or is_transposed(layer)


def _plain(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.MultiheadAttention):
        return SelfAttention(layer)
    if is_window_attention(layer):
        return plain_window_attention(layer)
    return _linear(layer.get_parameter("weight").T, layer.get_parameter("bias"))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """Return a linear layer of weights [outputs, inputs]."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), weight.requires_grad)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return linear


class SelfAttention(nn.Module):
    """torch's attention with its four projections as layers, so that it may have fewer heads than its width allows.

    Returns (answers, None): the weights of attention are not told.
    """

    #: What torch's own encoder layer asks before it would compute the attention by itself, past its layers.
    _qkv_same_embed_dim = False
    in_proj_bias = None

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = source.num_heads, source.head_dim
        self.batch_first, self.dropout = source.batch_first, source.dropout
        weights = source.in_proj_weight.chunk(3)
        biases = (None, None, None) if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = (_linear(*pair) for pair in zip(weights, biases, strict=True))
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)

    def forward(  # noqa: PLR0917 — as torch's own
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """Attend as torch.nn.MultiheadAttention does."""
        turned = not self.batch_first and query.ndim == 3
        queries, keys, values = (
            torch.unflatten(projection(one.transpose(0, 1) if turned else one), -1, (-1, self.head_dim)).transpose(
                -3, -2
            )
            for projection, one in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = None if attn_mask is None else _added(attn_mask, queries)
        if mask is not None and mask.ndim == 3:
            mask = torch.unflatten(mask, 0, (-1, self.num_heads))
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, queries)[..., None, None, :]
            mask = padding if mask is None else mask + padding
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        answers = self.out_proj(attended.transpose(-3, -2).flatten(-2))
        return answers.transpose(0, 1) if turned else answers, None


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a mask as what is added to the scores; True is what is not attended to."""
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))
