"""Operators that torch's exporter does not know, or writes otherwise than they are, are exported as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from plimsoll_job.errors import UserError
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.inputs import Input, single

ROWS, WIDTH = 6, 8
Function = Callable[[torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    """Answers with what the function makes of [batch, rows, width], as one row of numbers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.weights = function if isinstance(function, nn.Module) else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(inputs).flatten(1)


def heads(inputs: torch.Tensor, count: int) -> torch.Tensor:
    return inputs.reshape(-1, ROWS, count, 2).transpose(1, 2)


def shared_heads(inputs: torch.Tensor) -> torch.Tensor:
    """Four heads of the query, two of key and value."""
    query, key, value = heads(inputs, 4), heads(inputs[..., :4], 2), heads(inputs[..., 4:], 2)
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


LAYERS: dict[str, Function] = {
    "RMSNorm": nn.RMSNorm(WIDTH),
    "RMSNorm of two axes": nn.RMSNorm((ROWS, WIDTH), eps=1e-3),
    "RMSNorm without weights": nn.RMSNorm(WIDTH, elementwise_affine=False),
    "windows of the last axis": lambda inputs: inputs.unfold(-1, 3, 2),
    "windows of another axis": lambda inputs: inputs.unfold(1, 4, 1),
    "windows of what is padded": lambda inputs: functional.pad(inputs, (1, 1)).unfold(2, 4, 2).unfold(1, 3, 1),
    "attention of shared heads": shared_heads,
    "attention": lambda inputs: functional.scaled_dot_product_attention(inputs, inputs, inputs),
    "ChannelShuffle": nn.ChannelShuffle(2),
    "bilinear": lambda inputs: functional.bilinear(inputs, inputs + 1, torch.arange(3.0 * WIDTH**2).view(3, WIDTH, -1)),
    "addcdiv": lambda inputs: torch.addcdiv(inputs, inputs, inputs.abs() + 1, value=0.5),
    "trunc": lambda inputs: (3 * inputs).trunc(),
    "frac": lambda inputs: (3 * inputs).frac(),
    "erfc": torch.erfc,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": lambda inputs: (inputs.abs() + 1).acosh(),
    "atanh": lambda inputs: (inputs.tanh() * 0.9).atanh(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_answers_as_the_module(tmp_path: Path, name: str) -> None:
    """What is written is compared with the module, in several batches."""
    function = LAYERS[name]
    if isinstance(function, nn.RMSNorm) and function.elementwise_affine:
        torch.manual_seed(0)
        nn.init.normal_(function.weight)
    export_onnx(Layer(function).eval(), single((ROWS, WIDTH)), tmp_path / "model.onnx")


@pytest.mark.parametrize("was_on", [False, True])
def test_what_cannot_be_exported_is_named_and_no_graph_is_printed(
    was_on: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where an export by other code left the exporter's log turned on."""
    torch._C._jit_set_onnx_log_enabled(was_on)
    with pytest.raises(UserError, match=r"^spec\.model\.architecture: .* 'aten::fft_rfft' to ONNX"):
        export_onnx(Layer(lambda inputs: torch.fft.rfft(inputs).abs()), single((WIDTH,)), tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""
    assert torch._C._jit_is_onnx_log_enabled() is was_on
    torch._C._jit_set_onnx_log_enabled(False)


class Pooled(nn.Module):
    """Texts pooled to a number of tokens that only a fixed length can be pooled to."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool2d(self.words(input_ids)[:, None], (3, 2)).flatten(1)


def test_what_needs_a_size_that_is_free_falls_back_to_a_fixed_one(tmp_path: Path) -> None:
    texts = (Input("input_ids", (7,), "int64", 5, any_length=True),)
    exported = export_onnx(Pooled().eval(), texts, tmp_path / "model.onnx")
    assert not exported.signature[0].any_length
    assert "Texts must have 7 tokens" in exported.notes[0]
