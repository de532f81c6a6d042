"""What the step's record tells of structured pruning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from plimsoll_api.artifact import Leftover
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_job.techniques.left import leave
from plimsoll_job.techniques.prune.compensation import Refitted
from plimsoll_job.techniques.prune.groups import ChannelGroup
from plimsoll_job.techniques.prune.ranking import CLOSE_ENOUGH
from plimsoll_job.techniques.record import six_digits
from plimsoll_job.techniques.shape import Cut

#: Channel numbers that a record holds: all records of a job share the 256 KiB of its report.
MOST_NUMBERS = 2_000
#: What all iterations of a step may tell; of longer records only the last iteration tells of its layers.
MOST_BYTES = 65_536
#: Names that a note lists.
MOST_NAMES = 5
OF_LAYERS = frozenset(
    {"batchNorm", "blockWidth", "channels", "gone", "groups", "heads", "refitted", "sensitivity", "zeros"}
)


def channels_by_layer(groups: Sequence[ChannelGroup], cuts: Sequence[Cut]) -> dict[str, list[int]]:
    """Return, by layer, how many output channels there were and how many are left."""
    gone = {one.layer: len(one.channels) for one in cuts}
    return {group.root: [group.channel_count, group.channel_count - gone.get(group.root, 0)] for group in groups}


def gone_by_layer(cuts: Sequence[Cut]) -> dict[str, Any]:
    """Return the channels that went, by their numbers before the cut, and a digest of them; of many the digest only."""
    gone = {one.layer: list(one.channels) for one in cuts}
    told = {"goneDigest": digest_of(canonical_json(gone))}
    return told | ({"gone": gone} if sum(map(len, gone.values())) <= MOST_NUMBERS else {})


def units_by_layer(groups: Sequence[ChannelGroup], cuts: Sequence[Cut]) -> dict[str, dict[str, list[int]]]:
    """Return how many heads of attention, and how many groups of convolutions, there were and how many are left.

    Heads by the first projection of their attention, groups by the layer that writes what the convolution reads.
    """
    told: dict[str, dict[str, list[int]]] = {}
    counts = channels_by_layer(groups, cuts)
    for group in groups:
        if group.unit > 1:
            of_kind = told.setdefault("heads" if group.of_heads else "groups", {})
            gone = (counts[group.root][0] - counts[group.root][1]) // group.unit
            of_kind[group.root] = [len(group.units), len(group.units) - gone]
    return told


def describe_refits(refitted: Sequence[Refitted]) -> dict[str, dict[str, Any]]:
    """Return, by consumer, the channels that it reads and how wrong its outputs are, refitted and merely cut."""
    return {
        one.layer: {
            "channels": [one.channels_before, one.channels_after],
            "errorOfCut": six_digits(one.error_of_cut),
            "error": six_digits(one.error),
        }
        for one in refitted
    }


def notes_on_data(refitted: Sequence[Refitted]) -> tuple[str, ...]:
    """Return a sentence for each layer that saw too little data to be refitted well."""
    thin = [one for one in refitted if one.row_count < one.channels_before]
    return tuple(
        f"{one.layer}: {one.row_count} rows of calibration data cannot tell {one.channels_before} channels apart; "
        "give more samples."
        for one in thin
    )


def notes_on_amount(amount: float, share: float) -> tuple[str, ...]:
    """Return a sentence on an amount that was not met."""
    if abs(share - amount) <= CLOSE_ENOUGH:
        return ()
    return (f"{amount:.1%} was ordered; {share:.1%} is as near as whole channels come.",)


def notes_on_cuts(left: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence on groups of channels that were tried and left whole."""
    if not left:
        return ()
    shown = [f"{root} ({reason})" for root, reason in list(left.items())[:MOST_NAMES]]
    more = f" and {len(left) - MOST_NAMES} more" if len(left) > MOST_NAMES else ""
    return (f"Left whole, since the model does not answer rightly without single channels: {', '.join(shown)}{more}.",)


def left_whole(
    module: nn.Module, left: Mapping[str, str], reasons: Mapping[str, str], reached: Collection[str] = ()
) -> tuple[Leftover, ...]:
    """Return the layers that keep all their channels: groups that were tried, and what could not be; each with why.

    Those of `reached` read channels of which some could go.
    """
    why = "the model does not answer rightly without single channels of it"
    tried = {root: f"{why}: {reason}" for root, reason in left.items()}
    whole = {
        layer: f"its channels stay: {reason}" for layer, reason in reasons.items() if reason and layer not in reached
    }
    return tuple(
        leave(layer, type(module.get_submodule(layer)).__name__, told) for layer, told in (whole | tried).items()
    )


def reached_by(groups: Sequence[ChannelGroup]) -> frozenset[str]:
    """Return the names of the layers that could have lost channels."""
    return frozenset(one.name for group in groups for one in (*group.producers, *group.consumers, *group.others))


def told_of_turns(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a step of one iteration tells; of several, each by itself, and what they came to."""
    if len(records) == 1:
        return {name: value for name, value in records[0].items() if name not in {"amount", "share"}}
    counts: dict[str, list[int]] = {}
    for record in records:
        for layer, (before, after) in record.get("channels", {}).items():
            counts.setdefault(layer, [before, after])[1] = after
    told: dict[str, Any] = {}
    for record in records:
        told |= {name: record[name] for name in ("zeros", "maskDigest") if name in record}
    if len(canonical_json(list(records))) > MOST_BYTES:
        brief = [{name: value for name, value in one.items() if name not in OF_LAYERS} for one in records[:-1]]
        records = [*brief, records[-1]]
    return {**({"channels": counts} if counts else {}), **told, "iterations": list(records)}
