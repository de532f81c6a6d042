"""Whether channels can really go: the pruned model answers as the whole one does when nobody reads them.

The dependency graph is inferred from a trace. What it gets wrong may run all the same, and answer nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plimsoll_job.figures import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.allocation import unread
from plimsoll_job.techniques.prune.coupling import ChannelGroup, cut
from plimsoll_job.techniques.shape import Cut

#: Largest difference of answers, as a share of the largest answer.
TOLERANCE = 1e-3
#: What hands each channel on by itself; other normalisation mixes them, so that answers change with every channel.
CHANNELWISE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.PReLU)


def why_unsound(
    module: nn.Module, signature: Signature, groups: Sequence[ChannelGroup], cuts: Sequence[Cut], pruned: nn.Module
) -> str:
    """Return why the pruned module is not what the cuts should leave of the module, nothing when it is."""
    layers = dict(module.named_modules())
    mixed = {
        group.root for group in groups if not all(isinstance(layers[one.name], CHANNELWISE) for one in group.others)
    }
    example = example_of(signature)
    exact = [one for one in cuts if one.layer not in mixed]
    try:
        with torch.no_grad():
            expected, given = module(*example).shape, pruned(*example)
            if given.shape != expected:
                return f"the answers change from {list(expected)} to {list(given.shape)}"
            with unread(module, groups, exact):
                wanted = module(*example)
            if len(exact) < len(cuts):
                given = cut(module, signature, exact)(*example) if exact else wanted
    # A module that reads the weight of a layer instead of calling it finds no such attribute; torch-pruning's own
    # functions fail in other ways still.
    except (RuntimeError, AttributeError, IndexError, ValueError) as error:
        return f"the pruned model does not run: {error}"
    difference = float((given - wanted).abs().max())
    if not difference <= TOLERANCE * max(float(wanted.abs().max()), 1e-6):
        return f"the answers differ by {difference:.3g} from those that they should leave"
    return ""


def unsound_groups(module: nn.Module, signature: Signature, groups: Sequence[ChannelGroup]) -> list[str]:
    """Return the roots of the groups whose channels cannot go, each tried by itself."""
    found = []
    for group in groups:
        one = Cut(group.root, tuple(range(group.unit)))
        try:
            pruned = cut(module, signature, [one])
        except (RuntimeError, AttributeError, IndexError, ValueError):
            found.append(group.root)
            continue
        if why_unsound(module, signature, groups, [one], pruned):
            found.append(group.root)
    return found
