"""Modules of known couplings with weights that differ, and channels planted in them that others can stand in for."""

from __future__ import annotations

import torch
from tests.jobimage.bench import bench_of
from tests.jobimage.modules import DepthwiseSeparable, Flattened, MixedMLP, PlainCNN, Residual
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.figures import WEIGHTED
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.shape import Applied, Candidate

ARCHITECTURES: list[type[nn.Module]] = [PlainCNN, Flattened, MixedMLP, Residual, DepthwiseSeparable]


def built(build: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return the module with weights that make its answers differ, and normalisation that is not the identity."""
    torch.manual_seed(seed)
    module = build().eval()
    for layer in module.modules():
        if isinstance(layer, WEIGHTED):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5)
    return module


def pruned(
    module: nn.Module, samples: Samples, amount: str, criterion: str = "Redundancy", batch_norm: str | None = None
) -> Applied:
    settings = Prune.model_validate({"criterion": criterion, "amount": amount, "batchNorm": batch_norm})
    return prune.apply(settings, Candidate(module), bench_of(module, calibration=samples))


def copy_channel(module: nn.Module, layers: list[str], source: int, target: int, factor: float = 1) -> None:
    """Make one channel the multiple of another: the last layer named is scaled, the others are copied."""
    with torch.no_grad():
        for number, name in enumerate(layers):
            layer = module.get_submodule(name)
            last = factor if number == len(layers) - 1 else 1
            for key, tensor in layer.state_dict().items():
                if tensor.ndim:
                    tensor[target] = tensor[source] * (last if key in ("weight", "bias") else 1)
