"""Which channels go together, and cutting them out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from torch import nn

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.copying import sharing
from plimsoll_job.techniques.prune.following import follow
from plimsoll_job.techniques.prune.grouping import couple
from plimsoll_job.techniques.prune.groups import ChannelGroup, Coupling
from plimsoll_job.techniques.prune.plain import put_plain_layers
from plimsoll_job.techniques.prune.resizing import cut_out
from plimsoll_job.techniques.shape import Cut


def find_groups(module: nn.Module, signature: Signature) -> list[ChannelGroup]:
    """Return the groups of channels of which some may be deleted, in the order of their roots in the module."""
    return list(find_coupling(module, signature).groups)


def find_coupling(module: nn.Module, signature: Signature) -> Coupling:
    """Return what can go of a module of plain layers; UserError where it does not run.

    What attention reads and writes stays, the width that all layers of a transformer share.
    """
    # What stops a module is of any type: torch's own checks, and the module's code.
    try:
        flow = follow(module, example_of(signature))
    except Exception as error:
        check_passing(error)
        raise UserError(
            f"spec.model.architecture: structured pruning cannot follow this model: {error}", reason="NotPrunable"
        ) from error
    coupling = couple(module, flow)
    give_back()
    return coupling


def cut(module: nn.Module, signature: Signature, cuts: Iterable[Cut]) -> nn.Module:
    """Return a copy of plain layers without the channels; the same cuts on the same module give the same module.

    NotCutError where the module's code does not follow.
    """
    module = sharing(module)
    put_plain_layers(module)
    example = example_of(signature)
    for _, of_turn in groupby(cuts, key=lambda one: one.turn):
        coupling = find_coupling(module, signature)
        module, _ = cut_out(module, example, coupling, coupling.gone(of_turn, module))
    return module.eval()
