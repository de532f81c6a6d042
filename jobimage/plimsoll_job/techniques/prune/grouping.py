"""Channels in groups: the classes of one run of a module, by the layers that write and read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.techniques.prune.atoms import NONE, Classes
from plimsoll_job.techniques.prune.flow import Flow
from plimsoll_job.techniques.prune.groups import STAYS, ChannelGroup, Coupling, Member, Place
from plimsoll_job.techniques.prune.roles import Role, role_of
from plimsoll_job.techniques.prune.settling import settle

WIDTH = "attention reads or writes them: the width that its layers share stays"
ALONE = "all of them go together or not at all"
UNREAD = "no layer of a known kind that is called reads them"
UNEVEN = "they are normalised in groups of several sizes"


def couple(module: nn.Module, flow: Flow) -> Coupling:
    """Return what can go, by what a run of the module told."""
    roles = {name: role for name, layer in module.named_modules() if (role := role_of(layer)) is not None}
    writes = {name: place for name, role in roles.items() if (place := (name, *role.writes)) in flow.weights}
    lanes = settle(flow, [flow.weights[place] for place in writes.values()])
    class_of = flow.atoms.all_classes()
    told = flow.atoms.reasons()
    atoms = {place: class_of[labels.numpy()] for place, labels in flow.weights.items()}
    heads = _classes(class_of, flow.heads)
    told |= dict.fromkeys(_width_of_attention(atoms, heads | _classes(class_of, flow.attended)) - set(told), WIDTH)
    stays = np.isin(class_of, list(told))
    classes = {place: np.where(stays[found], STAYS, found) for place, found in atoms.items()}
    drafts, reasons = _drafts(writes, classes, atoms, told)
    called = {call.layer for call in flow.calls}
    # What a layer reads is seen where it is called; its weights may be read without that.
    sides = {
        (name, *where): side
        for name, role in roles.items()
        for where, side in _sides(role)
        if side == "writes" or name in called
    }
    members = _members(drafts, classes, len(class_of))
    groups = []
    for draft, found in zip(drafts, members, strict=True):
        rows = [class_of[labels.numpy()] for labels in lanes]
        made, reason = _group(draft, found, sides, rows, is_of_heads=bool(heads & set(draft.classes)))
        if made is None:
            reasons[draft.root] = reason
        else:
            groups.append(made)
    return Coupling(tuple(groups), reasons, flow, classes)


@dataclass(frozen=True)
class _Draft:
    """What may become a group: the classes that go, and which channels of the root are of each."""

    root: str
    channel_count: int
    classes: tuple[int, ...]
    units: NDArray[np.int64]


def _sides(role: Role) -> list[tuple[tuple[str, int], str]]:
    return [(role.writes, "writes"), *([(role.reads, "reads")] if role.reads else [])]


def _classes(class_of: Classes, labels: Iterable[torch.Tensor]) -> set[int]:
    found = [one.numpy().reshape(-1) for one in labels]
    numbers = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    return set(class_of[numbers[numbers != NONE]].tolist())


def _width_of_attention(atoms: Mapping[Place, Classes], attended: set[int]) -> set[int]:
    """Return the classes of channels on the other side of weights that make or take what attention multiplies.

    What attention multiplies may be the width itself, where it reads what the layers add to, or adds to that what it
    answers: then all weights read or write that, and only the width stays.
    """
    by_tensor: dict[tuple[str, str], list[set[int]]] = {}
    for (layer, tensor, _), classes in atoms.items():
        by_tensor.setdefault((layer, tensor), []).append(set(classes.tolist()))
    weights = [axes for axes in by_tensor.values() if len(axes) > 1]
    width = attended & _other_sides(weights, attended)
    return width | (_other_sides(weights, attended - width) - attended)


def _other_sides(weights: Iterable[Sequence[set[int]]], some: set[int]) -> set[int]:
    """Return the classes on the other axes of the weights one of whose axes is of some."""
    return {
        one
        for axes in weights
        for number, axis in enumerate(axes)
        if not axis.isdisjoint(some)
        for place, other in enumerate(axes)
        if place != number
        for one in other
    }


def _drafts(
    writes: Mapping[str, Place],
    classes: Mapping[Place, Classes],
    atoms: Mapping[Place, Classes],
    told: Mapping[int, str],
) -> tuple[list[_Draft], dict[str, str]]:
    """Return what may become groups, by the first layers that write their channels, and why other layers have none."""
    drafts, reasons, claimed = [], dict[str, str](), set[int]()
    for name, place in writes.items():
        written = classes[place]
        if not (written != STAYS).any():
            reasons[name] = next((told[one] for one in atoms[place].tolist() if one in told), "")
            continue
        found, counts = np.unique(written[written != STAYS], return_counts=True)
        is_new = np.array([one not in claimed for one in found.tolist()])
        claimed.update(found.tolist())
        if not is_new.any():
            continue
        # Units of one size can be compared; fewer channels of a group beside them stay.
        width = int(np.max(counts[is_new]))
        found = found[is_new & (counts == width)]
        if len(found) < 2:
            reasons[name] = ALONE
            continue
        order = np.argsort(written, kind="stable")
        channels = order[np.isin(written[order], found)].reshape(-1, width)
        by_place = np.argsort(channels[:, 0], kind="stable")
        units = channels[by_place]
        drafts.append(_Draft(name, len(written), tuple(written[units[:, 0]].tolist()), units))
    return drafts, reasons


def _members(
    drafts: Sequence[_Draft], classes: Mapping[Place, Classes], count: int
) -> list[list[tuple[Place, Member]]]:
    """Return the tensors that hold the channels of each group."""
    draft_of = np.full(count, -1)
    unit_of = np.zeros(count, dtype=np.int64)
    for number, draft in enumerate(drafts):
        draft_of[list(draft.classes)] = number
        unit_of[list(draft.classes)] = np.arange(len(draft.classes))
    draft_of[STAYS] = -1
    found: list[list[tuple[Place, Member]]] = [[] for _ in drafts]
    for place, of_place in classes.items():
        numbers = draft_of[of_place]
        for number in np.unique(numbers[numbers >= 0]).tolist():
            positions = np.flatnonzero(numbers == number)
            channels = _channels(drafts[number].units, unit_of[of_place[positions]])
            name, tensor, axis = place
            member = Member(name, axis, tuple(positions.tolist()), tuple(channels.tolist()), tensor)
            found[number].append((place, member))
    return found


def _channels(units: NDArray[np.int64], unit_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the channel of each position of a unit: the first ones of it are of its first channel."""
    order = np.argsort(unit_of, kind="stable")
    counts = np.bincount(unit_of, minlength=len(units))
    ranks = np.empty(len(unit_of), dtype=np.int64)
    ranks[order] = np.arange(len(unit_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_channel = -(-counts // units.shape[1])
    channels: NDArray[np.int64] = units[unit_of, np.minimum(ranks // of_channel[unit_of], units.shape[1] - 1)]
    return channels


def _group(
    draft: _Draft,
    members: Sequence[tuple[Place, Member]],
    sides: Mapping[Place, str],
    rows: Sequence[Classes],
    *,
    is_of_heads: bool,
) -> tuple[ChannelGroup | None, str]:
    """Return the group, or why it is none."""
    of_side = {side: tuple(member for place, member in members if sides.get(place, "") == side) for side in _SIDES}
    if not of_side["reads"]:
        return None, UNREAD
    lanes = _lanes(draft.classes, rows)
    if lanes is None:
        return None, UNEVEN
    units = tuple(tuple(unit) for unit in draft.units.tolist())
    made = ChannelGroup(
        draft.root, draft.channel_count, of_side["writes"], of_side["reads"], of_side[""], units, lanes, is_of_heads
    )
    return made, ""


_SIDES = ("writes", "reads", "")


def _lanes(classes: Sequence[int], rows: Sequence[Classes]) -> tuple[tuple[int, ...], ...] | None:
    """Return the units of each of the rows of which as many go, the finest; none where rows do not fit each other."""
    number = {one: at for at, one in enumerate(classes)}
    found = [
        tuple(tuple(number[one] for one in row.tolist()) for row in some)
        for some in rows
        if not number.keys().isdisjoint(some.flatten().tolist())
    ]
    finest = max(found, key=len, default=())
    lane_of = {unit: at for at, lane in enumerate(finest) for unit in lane}
    for lanes in found:
        if sorted(unit for lane in lanes for unit in lane) != sorted(lane_of):
            return None
        counts = {tuple(sorted({lane_of[unit] for unit in lane})) for lane in lanes}
        if sum(map(len, counts)) != len(finest):
            return None
    return finest
