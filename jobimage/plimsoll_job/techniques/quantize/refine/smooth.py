"""Channels that vary in size made alike in what is rounded, and their weights as much larger: SmoothQuant.

Xiao et al. 2022, arXiv 2211.10438; between two layers it is cross-layer equalization (Nagel et al. 2019,
arXiv 1906.04721). Factors are powers of two, by which floats are multiplied without rounding: the answers of the float
model stay what they were to the last bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.load.data import Samples
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.padding import PROBED, differ
from plimsoll_job.techniques.quantize.fidelity import answers
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph, shapes_of
from plimsoll_job.techniques.quantize.refine.channels import find_places, vaguely_shaped
from plimsoll_job.techniques.quantize.refine.grid import Grid
from plimsoll_job.techniques.quantize.refine.inputs import observe
from plimsoll_job.techniques.quantize.refine.place import Factor, Place, Reader, Where
from plimsoll_job.techniques.quantize.refine.refined import Refined
from plimsoll_job.techniques.quantize.refine.sizes import Sizes

#: How much of a channel's size goes into its weights: 1 makes what is read alike, 0 the weights.
STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
#: Steps of the grid that activations are rounded to, and the mean square of what rounding to steps of one loses.
STEPS, ROUNDING = 255, 1 / 12
#: The largest power of two of a factor, and the least with a minus.
MOST_DOUBLINGS = 16
#: Places whose expected error gets no smaller than this share of what it was stay as they are.
WORTH = 0.95


def smooth(model: FloatModel, layers: Collection[Layer], calibration: Samples, grid: Grid) -> Refined:
    """Return the model whose float answers are the same, and in which these layers read channels of more alike sizes.

    What a scheme with this grid of weights and activations of 8 bits is expected to lose in a place decides its
    strength, and whether it is changed. Layers that share what they read change together, and stay where one of what
    reads it cannot take a factor, or what computes it.
    """
    changed = model.lean()
    asked = {layer.node for layer in layers}
    places, why = find_places(changed, _shapes(model, calibration))
    places = [place for place in places if asked & place.reading]
    sizes = _observe(model, places, calibration) if places else {}
    errors: dict[str, float] = {}
    left = {node: why.get(node, "nothing that makes its channels can take factors") for node in asked}
    for place in places:
        factors, share = _choose(changed, place, asked, sizes, grid)
        if share > WORTH:
            left |= dict.fromkeys(asked & place.reading, "its channels are of like sizes")
            continue
        for factor in place.divided:
            _multiply(changed, factor, 1 / factors)
        for reader in place.readers:
            _multiply(changed, reader.weight, factors)
        errors |= dict.fromkeys(asked & place.reading, share)
    if not errors:
        return Refined(model, {}, left)
    changed.drop_unread()
    smoothed = model.rewritten(changed)
    if not _answers_alike(model, smoothed, calibration.take(slice(0, PROBED))):
        return Refined(model, {}, left | dict.fromkeys(errors, "the float answers would change"))
    return Refined(smoothed, errors, {node: reason for node, reason in left.items() if node not in errors})


def _shapes(model: FloatModel, calibration: Samples) -> dict[str, list[int]]:
    """Return the sizes of values of which the graph does not tell them, 0 where they vary with the samples' number."""
    names = vaguely_shaped(model.lean())
    if not names:
        return {}
    both = shapes_of(model, names, [calibration.take(slice(0, count)) for count in (1, 2)])
    return {
        name: [size if size == other else 0 for size, other in zip(*(some[name] for some in both), strict=False)]
        for name in names
    }


def _observe(model: FloatModel, places: Collection[Place], calibration: Samples) -> dict[tuple[str, Where], Sizes]:
    """Return the sizes of the channels in each value that is read."""
    sizes = {(reader.value, reader.at): Sizes.of(place.channels) for place in places for reader in place.readers}
    values = sorted({value for value, _ in sizes})
    padding = find_padding_in_graph(model, values, calibration)

    def watch(name: str, value: Tensor, counted: Tensor | None) -> None:
        for (of, at), held in sizes.items():
            if of == name:
                held.add(value, counted, at)

    observe(model, values, calibration, padding.layouts, watch)
    return sizes


def _choose(
    model: LeanModel,
    place: Place,
    asked: Collection[str],
    sizes: Mapping[tuple[str, Where], Sizes],
    grid: Grid,
) -> tuple[Tensor, float]:
    """Return the factors of the channels that lose the least, and what they lose over what is lost without."""
    read = [
        (_weight(model, reader, place.channels), sizes[reader.value, reader.at])
        for reader in place.readers
        if reader.weight.node in asked
    ]
    ones = torch.ones(place.channels, dtype=torch.float64)
    before = _expected_loss(read, ones, grid)
    if not 0 < before < float("inf"):
        return ones, 1.0
    largest = torch.stack([of.largest for _, of in read]).amax(0)
    heaviest = torch.stack([weight.abs().amax((0, 2)) for weight, _ in read]).amax(0).double()
    tried = [_factors(largest, heaviest, strength) for strength in STRENGTHS]
    losses = [_expected_loss(read, factors, grid) for factors in tried]
    best = int(np.argmin(losses))
    return tried[best], float(np.sqrt(losses[best] / before))


def _factors(largest: Tensor, heaviest: Tensor, strength: float) -> Tensor:
    """Return powers of two about 1, those of channels that are never active, or have no weights, 1."""
    alive = (largest > 0) & (heaviest > 0)
    if not alive.any():
        return torch.ones_like(largest)
    doublings = strength * largest[alive].log2() - (1 - strength) * heaviest[alive].log2()
    factors = torch.ones_like(largest)
    factors[alive] = (doublings - doublings.median()).round().clamp(-MOST_DOUBLINGS, MOST_DOUBLINGS).exp2()
    return factors


def _expected_loss(read: Collection[tuple[Tensor, Sizes]], factors: Tensor, grid: Grid) -> float:
    """Return the mean square that rounding is expected to change what the layers answer by, over that of the answers.

    Losses of channels are taken to be independent; one whose numbers all round to 0 loses no more than those.
    """
    total = 0.0
    for weight, of in read:
        step = ((of.high / factors).max() - (of.low / factors).min()) / STEPS
        square, energy = of.mean_square / factors**2, weight.double().square().sum((0, 2))
        scaled = weight * factors[:, None].to(weight.dtype)
        rows = scaled.flatten(1)
        lost = (grid.round(rows) - rows).view_as(scaled).double().square().sum((0, 2))
        loss = (square.clamp(max=float(step**2) * ROUNDING) * factors**2 * energy).sum() + (square * lost).sum()
        answered = (of.mean_square * energy).sum()
        total += float(loss / answered) if answered > 0 else 0.0
    return total


def _weight(model: LeanModel, reader: Reader, channels: int) -> Tensor:
    """Return the weight of a layer as [outputs, channels, what it multiplies of each]."""
    node = next(node for node in model.proto.graph.node if node.name == reader.weight.node)
    constant = next(one for one in model.proto.graph.initializer if one.name == node.input[reader.weight.place])
    weight, at = torch.from_numpy(np.array(model.array(constant), np.float32)), reader.weight.at
    if node.op_type == "Conv" and at.axis == -weight.ndim:
        # Of each channel alone: [channels, outputs of it, …].
        return weight.reshape(channels, at.repeats, -1).transpose(0, 1)
    if node.op_type == "Conv":
        return weight.flatten(2)
    return weight.movedim(at.axis, 1).reshape(-1, channels, at.repeats)


def _multiply(model: LeanModel, factor: Factor, factors: Tensor) -> None:
    """Multiply what the constant has of each channel; another that reads a vector keeps it as it was."""
    graph = model.proto.graph
    node = next(node for node in graph.node if node.name == factor.node)
    constant = next(one for one in graph.initializer if one.name == node.input[factor.place])
    shape = [1] * len(constant.dims)
    shape[factor.at.axis] = -1
    along = factors.repeat_interleave(factor.at.repeats).float().numpy().reshape(shape)
    numbers = partial(_product, model.source(constant), along)
    if len(constant.dims) > 1 and sum(constant.name in one.input for one in graph.node) == 1:
        model.replace(constant, constant.name, constant.data_type, numbers)
    else:
        name = f"{constant.name}_{node.name}_{factor.place}_smooth"
        model.add(name, constant.data_type, tuple(constant.dims), numbers)
        node.input[factor.place] = name


def _product(source: Numbers, along: NDArray[Any]) -> NDArray[Any]:
    product: NDArray[Any] = source() * along
    return product


def _answers_alike(model: FloatModel, other: FloatModel, samples: Samples) -> bool:
    """Return whether both answer these samples alike."""
    expected, given = (torch.from_numpy(answers(open_frugally(one.path), samples)) for one in (model, other))
    return not differ(given, expected)
