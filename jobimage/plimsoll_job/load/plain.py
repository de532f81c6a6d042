"""Modules as everything after takes them: on the host, in single precision, each weight a parameter of its layer.

A weight that is computed anew at each call, by a parametrization or a hook of torch's, is computed once and put in its
place; nothing after would find it, and it would be computed at each answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from plimsoll_job.errors import UserError

FIELD = "spec.model.architecture"
#: What torch's own layers call their weights.
WEIGHT = "weight"
#: The hooks with which torch computes a weight before each call, and the ends of the names of what it computes it from.
Hook = WeightNorm | SpectralNorm | prune.BasePruningMethod


@dataclass(frozen=True)
class _Computed:
    """One tensor of a layer that is computed from others at each call: by a hook, or by parametrizations where None."""

    path: str
    layer: nn.Module
    name: str
    hook: Hook | None


def plain(module: nn.Module, spec_field: str = FIELD) -> nn.Module:
    """Return the module, loaded, as everything after takes it, in evaluation mode; it is changed.

    What shares the tensors that a weight is computed from shares the weight then. A module of which nothing could be
    trained can be, whole; one that is frozen in parts stays so. UserError that names the layer where
    a weight is no matrix of numbers at hand, or is computed in a way that is not torch's.
    """
    module = module.eval()
    check_tensors(module, spec_field)
    module = module.cpu().float()
    _fold(_computed(module), spec_field)
    _hold_weights(module, spec_field)
    # Built for inference: a step that trains it is to train something, and nothing says that it be a part.
    if not any(one.requires_grad for one in module.parameters()):
        module.requires_grad_(True)
    return module


def check_tensors(module: nn.Module, spec_field: str = FIELD) -> None:
    """UserError for tensors of kinds that nothing after can read, by layer and with what would be right."""
    for path, tensor in _tensors(module):
        if nn.parameter.is_lazy(tensor):
            raise UserError(
                f"{spec_field}: {path} is lazy, its size not known before the first call; have the factory give the "
                "sizes, or call the module once before it returns it"
            )
        for kind, found, instead in (
            ("quantized", tensor.is_quantized, "give the float model that it was made from"),
            ("sparse", tensor.layout != torch.strided, "give it dense (to_dense)"),
            ("complex", tensor.is_complex(), "write the layer with real numbers, since ONNX has no others"),
            ("on the meta device, without numbers", tensor.is_meta, "have the factory make it on the processor"),
        ):
            if found:
                raise UserError(f"{spec_field}: {path} is {kind}; {instead}")
    packed = [
        path or "the model"
        for path, layer in module.named_modules()
        if type(layer).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
    ]
    if packed:
        raise UserError(f"{spec_field}: {packed[0]} is quantized; give the float model that it was made from")


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _computed(module: nn.Module) -> list[_Computed]:
    found = []
    for path, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            assert isinstance(layer.parametrizations, nn.ModuleDict)  # noqa: S101 — torch's own check says so
            found += [_Computed(path, layer, name, None) for name in layer.parametrizations]
        for hook in layer._forward_pre_hooks.values():
            # Parts of one tensor that were pruned one after the other are held by one hook.
            name = str(getattr(hook, "_tensor_name", None) or getattr(hook, "name", ""))
            if isinstance(hook, Hook):
                found.append(_Computed(path, layer, name, hook))
    return found


def _fold(computed: Iterable[_Computed], spec_field: str) -> None:
    """Put what is computed in its place, once all of it is computed: one may be computed from another's parts."""
    found: list[tuple[_Computed, tuple[int, ...], nn.Parameter]] = []
    for one in computed:
        sources = _sources(one)
        with torch.no_grad():
            if one.hook is not None:
                one.hook(one.layer, ())
            value = getattr(one.layer, one.name).detach().clone()
        if not value.is_floating_point():
            raise UserError(f"{spec_field}: {one.path}.{one.name} is computed as {value.dtype}, expected numbers")
        held = next((held for _, of, held in found if of == tuple(map(id, sources)) and torch.equal(held, value)), None)
        trained = any(source.requires_grad for source in sources)
        found.append((one, tuple(map(id, sources)), nn.Parameter(value, trained) if held is None else held))
    for one, _, value in found:
        _remove(one)
        one.layer._parameters[one.name] = value
        if isinstance(one.layer, nn.RNNBase):
            one.layer._flat_weights = [getattr(one.layer, name, None) for name in one.layer._flat_weights_names]


def _sources(one: _Computed) -> list[torch.Tensor]:
    """Return the tensors that the layer's is computed from."""
    if one.hook is None:
        return [*one.layer.parametrizations[one.name].parameters(), *one.layer.parametrizations[one.name].buffers()]  # type: ignore[index,union-attr]
    ends = {WeightNorm: ("_g", "_v"), SpectralNorm: ("_orig",)}.get(type(one.hook), ("_orig", "_mask"))
    return [getattr(one.layer, one.name + end) for end in ends]


def _remove(one: _Computed) -> None:
    """Take away what computes the tensor; torch leaves a parameter of the name."""
    if isinstance(one.hook, WeightNorm):
        remove_weight_norm(one.layer, one.name)
    elif isinstance(one.hook, SpectralNorm):
        remove_spectral_norm(one.layer, one.name)
    elif one.hook is not None:
        prune.remove(one.layer, one.name)  # type: ignore[no-untyped-call]
    else:
        parts: Any = one.layer.parametrizations[one.name]  # type: ignore[index]
        # torch writes what was computed into what it was computed from, which other layers may share.
        for name, parameter in list(parts.named_parameters(recurse=False)):
            parts._parameters[name] = nn.Parameter(parameter.detach().clone())
        parametrize.remove_parametrizations(one.layer, one.name, leave_parametrized=True)


def _hold_weights(module: nn.Module, spec_field: str) -> None:
    """Make parameters of weights that are buffers; UserError where a weight is neither."""
    for path, layer in module.named_modules():
        # Layers of other makers may do otherwise, and are followed by nobody.
        if not type(layer).__module__.startswith("torch.nn.modules.") or not hasattr(layer, WEIGHT):
            continue
        for name in (WEIGHT, "bias"):
            value = getattr(layer, name, None)
            if not isinstance(value, torch.Tensor) or name in layer._parameters:
                continue
            if name not in layer._buffers:
                hooks = ", ".join(type(hook).__name__ for hook in layer._forward_pre_hooks.values())
                by = f" by {hooks}" if hooks else ""
                raise UserError(
                    f"{spec_field}: {path or 'the model'}.{name} is computed at each call{by}; "
                    "have the factory return a module that holds it, or compute it with torch's parametrizations"
                )
            del layer._buffers[name]
            layer._parameters[name] = nn.Parameter(value, requires_grad=False)
