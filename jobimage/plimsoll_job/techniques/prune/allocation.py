"""A sensitivity scan as scores of channels: what a channel costs in answers, for what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.prune.amount import Estimate
from plimsoll_job.techniques.prune.groups import ChannelGroup, positions_of
from plimsoll_job.techniques.prune.importance import Score, Scores
from plimsoll_job.techniques.prune.sensitivity import Scan, scan
from plimsoll_job.techniques.shape import Cut


def scan_channels(
    module: nn.Module, groups: Sequence[ChannelGroup], scores: Scores, samples: Samples, device: torch.device
) -> Scan:
    """Return what each group costs when its channels of the lowest scores are read by nobody."""
    by_root = {group.root: group for group in groups}

    @contextmanager
    def silence(roots: Sequence[str], share: float) -> Iterator[None]:
        with unread(module, groups, [_lowest(by_root[root], scores[root], share) for root in roots]):
            yield

    return scan(module, list(by_root), silence, samples, device)


def scores_of(scan: Scan, groups: Sequence[ChannelGroup], scores: Scores, estimate: Estimate) -> Scores:
    """Return scores by which the whole model is ranked: what each channel costs for what it saves.

    Within a group the order stays as the scores have it.
    """
    return {group.root: _score(scan, group, scores[group.root], estimate) for group in groups}


@contextmanager
def unread(module: nn.Module, groups: Sequence[ChannelGroup], cuts: Sequence[Cut]) -> Iterator[None]:
    """Let no layer read the channels for a while."""
    read = {(member.name, member.tensor, member.axis) for group in groups for member in group.consumers}
    silenced = [
        (module.get_submodule(name).get_parameter(tensor).detach().movedim(axis, 0), sorted(positions))
        for (name, tensor, axis), positions in positions_of(groups, cuts).items()
        if (name, tensor, axis) in read and positions
    ]
    kept = [weight[positions] for weight, positions in silenced]
    for weight, positions in silenced:
        weight[positions] = 0
    try:
        yield
    finally:
        for (weight, positions), values in zip(silenced, kept, strict=True):
            weight[positions] = values


def _lowest(group: ChannelGroup, score: Score, share: float) -> Cut:
    """Return the cut of that share of the group, at least a unit and never all."""
    ranked = group.units_by(score)
    chosen = ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)]
    return Cut(group.root, tuple(int(channel) for channel in chosen.flatten()))


def _score(scan: Scan, group: ChannelGroup, score: Score, estimate: Estimate) -> Score:
    half = _lowest(group, score, 0.5)
    saved = estimate.share_of([half]) / max(len(half.channels), 1) * len(group.units) * group.unit
    ranked = group.units_by(score)
    places = (np.arange(len(ranked)) + 0.5) / len(ranked)
    # Where the scan sees no difference the scores' own order holds.
    cost = scan.marginal_cost(group.root, places) / max(saved, 1e-12) + 1e-12 * places
    of_channel = np.full(group.channel_count, np.inf)
    of_channel[ranked] = cost[:, None]
    return of_channel
