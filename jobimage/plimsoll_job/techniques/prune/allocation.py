"""A sensitivity scan as scores of channels: what a channel costs in answers, for what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.prune.amount import Estimate
from plimsoll_job.techniques.prune.coupling import ChannelGroup, positions_of
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
    read = {(member.name, 1) for group in groups for member in group.consumers}
    weights: Mapping[torch.Tensor, list[int]] = {
        module.get_submodule(name).get_parameter("weight"): sorted(positions)
        for (name, axis), positions in positions_of(groups, cuts).items()
        if (name, axis) in read and positions
    }
    kept = [weight[:, positions].detach().clone() for weight, positions in weights.items()]
    with torch.no_grad():
        for weight, positions in weights.items():
            weight[:, positions] = 0
        try:
            yield
        finally:
            for (weight, positions), values in zip(weights.items(), kept, strict=True):
                weight[:, positions] = values


def _by_rank(group: ChannelGroup, score: Score) -> np.ndarray:
    """Return the units of the group, the lowest score first."""
    return np.argsort(score.reshape(-1, group.unit).mean(axis=1), kind="stable")


def _lowest(group: ChannelGroup, score: Score, share: float) -> Cut:
    """Return the cut of that share of the group, at least a unit and never all."""
    ranked = _by_rank(group, score)
    units = ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)]
    channels = (units[:, None] * group.unit + np.arange(group.unit)).flatten()
    return Cut(group.root, tuple(int(channel) for channel in channels))


def _score(scan: Scan, group: ChannelGroup, score: Score, estimate: Estimate) -> Score:
    half = _lowest(group, score, 0.5)
    saved = estimate.share_of([half]) / max(len(half.channels), 1) * group.channel_count
    ranked = _by_rank(group, score)
    places = (np.arange(len(ranked)) + 0.5) / len(ranked)
    # Where the scan sees no difference the scores' own order holds.
    cost = scan.marginal_cost(group.root, places) / max(saved, 1e-12) + 1e-12 * places
    of_unit = np.empty(len(ranked))
    of_unit[ranked] = cost
    return np.repeat(of_unit, group.unit)
