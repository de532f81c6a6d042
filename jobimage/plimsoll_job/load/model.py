"""The model as given: a factory of the image builds the module, a safetensors file holds its weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from plimsoll_api.artifact import TOKENIZER_FILE
from plimsoll_api.model import digest_of
from plimsoll_api.spec import ModelSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_FIELD = "spec.model.uri"
FACTORY_FIELD = "spec.model.architecture.factory"
NAMES_SHOWN = 5


@dataclass(frozen=True)
class SourceModel:
    """The model as given; `build` makes the same module anew."""

    factory: str
    digest: str
    weights: dict[str, torch.Tensor]
    #: What an artifact needs beside the model, by its name there.
    files: Mapping[str, bytes] = field(default_factory=dict)

    def build_empty(self) -> nn.Module:
        """Return the factory's module, in evaluation mode, with whatever weights the factory gives."""
        return build_module(self.factory)

    def build(self) -> nn.Module:
        """Return the module with the given weights, in evaluation mode."""
        module = self.build_empty()
        load_strictly(module, self.weights, WEIGHTS_FIELD)
        return module


def load_model(source: ModelSource, store: Store) -> SourceModel:
    """Read and verify the weights, and try them on the factory's module."""
    uri, files = source.uri, {}
    if (directory := store.locate(uri, WEIGHTS_FIELD)).is_dir():
        uri = f"{uri}/{WEIGHTS_FILE}"
        if (directory / TOKENIZER_FILE).exists():
            files[TOKENIZER_FILE] = store.read(f"{source.uri}/{TOKENIZER_FILE}", WEIGHTS_FIELD)
    content = store.read(uri, WEIGHTS_FIELD)
    digest = digest_of(content)
    if source.digest is not None and source.digest != digest:
        raise UserError(f"spec.model.digest: {uri} has the digest {digest}", reason="DigestMismatch")
    weights = parse_weights(content, uri)
    model = SourceModel(source.architecture.factory, digest, weights, files)
    model.build()
    return model


def parse_weights(content: bytes, uri: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; UserError for anything else, and for numbers that are not finite."""
    try:
        weights: dict[str, torch.Tensor] = load_safetensors(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{WEIGHTS_FIELD}: {uri} is not a safetensors file: {error}", reason="WeightsUnreadable"
        ) from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{WEIGHTS_FIELD}: tensor {name!r} of {uri} holds NaN or infinite numbers")
    return weights


def build_module(factory: str) -> nn.Module:
    """Call `module:function` of the image; UserError when it is not there or returns no module."""
    module_name, _, function_name = factory.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise UserError(f"{FACTORY_FIELD}: the job image cannot import {module_name!r}: {error}") from error
    except AttributeError as error:
        raise UserError(f"{FACTORY_FIELD}: {module_name!r} has no function {function_name!r}") from error
    # What a factory's own code raises cannot be known; whatever it is, another factory must be named.
    try:
        module = function()
    except Exception as error:
        raise UserError(f"{FACTORY_FIELD}: {factory} failed: {error}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{FACTORY_FIELD}: {factory} returned {type(module).__name__}, expected a torch module")
    return module.eval()


def load_strictly(module: nn.Module, weights: dict[str, torch.Tensor], spec_field: str) -> None:
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
    module.load_state_dict(weights, strict=True)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
