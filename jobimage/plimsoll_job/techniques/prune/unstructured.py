"""Unstructured pruning: the smallest weights of the whole model are set to zero, and stay zero in later training."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.figures import WEIGHTED, count_parameters
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

NOTE = (
    "Single weights were set to zero: the file and the latency stay as they are, since neither ONNX nor its runtime "
    "stores or computes dense layers any smaller for zeros. Structured pruning makes models smaller and faster."
)


def prune_unstructured(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate with the smallest weights of convolutions and linear layers set to zero, ranked globally."""
    module = copy.deepcopy(candidate.module)
    names = [f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, WEIGHTED)]
    weights = {name: module.get_parameter(name) for name in names}
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()] or [torch.empty(0)])
    total = count_parameters(module)
    wanted = round(settings.amount.value * total)
    zeros_before = int((magnitudes == 0).sum())
    if wanted > len(magnitudes):
        raise UserError(
            f"{bench.spec_field}.amount: {settings.amount} cannot be reached; "
            f"weights of convolutions and linear layers are {len(magnitudes) / total:.1%} of the parameters"
        )
    if wanted <= zeros_before:
        raise UserError(
            f"{bench.spec_field}.amount: {zeros_before / total:.1%} of the parameters are zero already; "
            "nothing would change"
        )
    # A stable order makes equal magnitudes fall the same way everywhere.
    order = torch.argsort(magnitudes, stable=True)
    keep = torch.ones(len(magnitudes), dtype=torch.bool)
    keep[order[:wanted]] = False
    masks = torch.split(keep, [weight.numel() for weight in weights.values()])
    with torch.no_grad():
        for weight, mask in zip(weights.values(), masks, strict=True):
            weight.mul_(mask.view_as(weight))
    bench.reporter.report("prune", 1, f"{wanted / total:.1%} of the parameters are zero")
    zeros = {name: round(float((weight == 0).float().mean()), 6) for name, weight in weights.items()}
    return Applied(
        candidate=replace(candidate, module=module, sparse=candidate.sparse | frozenset(names)),
        details={"share": round(wanted / total, 6), "zeros": zeros},
        notes=(NOTE,),
    )
