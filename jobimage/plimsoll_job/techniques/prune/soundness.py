"""Whether channels can really go: the pruned model answers as the whole one does when nobody reads them.

The dependency graph is inferred from a trace. What it gets wrong may run all the same, and answer nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.prune.allocation import unread
from plimsoll_job.techniques.prune.coupling import ChannelGroup, cut
from plimsoll_job.techniques.prune.grouped import INSTANCE_NORMS
from plimsoll_job.techniques.shape import Cut
from plimsoll_job.techniques.ties import ties_of

#: Largest difference of answers, as a share of the largest answer.
TOLERANCE = 1e-3
#: What hands each channel on by itself; other normalisation mixes them, so that answers change with every channel.
CHANNELWISE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, *INSTANCE_NORMS, nn.PReLU)


def cut_soundly(
    module: nn.Module, signature: Signature, groups: Sequence[ChannelGroup], cuts: Sequence[Cut]
) -> tuple[nn.Module | None, str]:
    """Return the module without the channels, or none and why it is not what the cuts should leave of the module."""
    layers = dict(module.named_modules())
    mixed = {
        group.root for group in groups if not all(isinstance(layers[one.name], CHANNELWISE) for one in group.others)
    }
    example = example_of(signature)
    exact = [one for one in cuts if one.layer not in mixed]
    try:
        with torch.no_grad():
            expected = module(*example).shape
            with unread(module, groups, exact):
                wanted = module(*example)
            # First, so that it is gone when what is kept is made.
            given = cut(module, signature, exact)(*example) if 0 < len(exact) < len(cuts) else wanted
            give_back()
            pruned = cut(module, signature, cuts)
            answers = pruned(*example)
    # A module that reads the weight of a layer instead of calling it finds no such attribute; torch-pruning's own
    # functions fail in other ways still.
    except (RuntimeError, AttributeError, IndexError, ValueError) as error:
        return None, f"the channels cannot be cut: {error}"
    if apart := set(ties_of(module)) - set(ties_of(pruned)):
        return None, f"{' and '.join(next(iter(apart)))} are one weight, and would not be any more"
    if answers.shape != expected:
        return None, f"the answers change from {list(expected)} to {list(answers.shape)}"
    if len(exact) == len(cuts):
        given = answers
    difference = float((given - wanted).abs().max())
    if not difference <= TOLERANCE * max(float(wanted.abs().max()), 1e-6):
        return None, f"the answers differ by {difference:.3g} from those that they should leave"
    return pruned, ""


def unsound_groups(module: nn.Module, signature: Signature, groups: Sequence[ChannelGroup]) -> list[str]:
    """Return the roots of the groups whose channels cannot go, each tried by itself."""
    tried = {group.root: [Cut(group.root, tuple(range(group.unit)))] for group in groups}
    return [root for root, cuts in tried.items() if cut_soundly(module, signature, groups, cuts)[0] is None]
