"""Weights from safetensors files; no other format is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from plimsoll_job.errors import UserError

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_FIELD = "spec.model.uri"
NAMES_SHOWN = 5
#: Numbers that are looked at together.
PART = 1 << 20


def parse_weights(content: bytes, uri: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; UserError for anything else, and for numbers that are not finite."""
    try:
        weights: dict[str, torch.Tensor] = load_safetensors(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{WEIGHTS_FIELD}: {uri} is not a safetensors file: {error}", reason="WeightsUnreadable"
        ) from error
    for name, tensor in weights.items():
        # In parts: what tells of each number would be as large as all of them.
        parts = torch.split(tensor.flatten(), PART)
        if tensor.is_floating_point() and not all(torch.isfinite(part).all() for part in parts):
            raise UserError(f"{WEIGHTS_FIELD}: tensor {name!r} of {uri} holds NaN or infinite numbers")
    return weights


def load_strictly(module: nn.Module, weights: Mapping[str, torch.Tensor], spec_field: str) -> None:
    """Load the weights; UserError that names missing, unexpected and wrongly shaped tensors, all at once."""
    expected = module.state_dict()
    wrong = [
        f"{name} is {list(weights[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", [name for name in expected if name not in weights]),
            ("unexpected", [name for name in weights if name not in expected]),
            ("of the wrong shape", wrong),
        )
        if names
    ]
    if problems:
        raise UserError(f"{spec_field}: the weights do not fit the module; tensors {'; '.join(problems)}")
    # Its own state, filled with the weights: some modules ask it for their version, which safetensors does not keep.
    expected.update(weights)
    module.load_state_dict(expected, strict=True)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
