"""Which layers stay float: those first that cost the most when they alone are quantized."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from plimsoll_job.techniques.quantize.layers import Layer


@dataclass(frozen=True)
class Chosen:
    """The layers to quantize, and the error when each alone is, by its node; empty where all may be quantized."""

    layers: Sequence[Layer]
    alone: Mapping[str, float]


def choose_layers(
    layers: Sequence[Layer], error_of: Callable[[Collection[Layer]], float], max_error: float
) -> Chosen | None:
    """Return the layers that can be quantized together within the error, None when not even one can.

    `error_of` measures what quantizing these layers does to the answers. Layers are ranked by their error alone, and
    the number of the worst that stay float is found by bisection: more of them float is taken to be nearer.
    """
    if error_of(layers) <= max_error:
        return Chosen(layers, {})
    alone = {layer.node: error_of([layer]) for layer in layers}
    best_first = sorted(layers, key=lambda layer: alone[layer.node])
    if alone[best_first[0].node] > max_error:
        return None
    fits, breaks = 1, len(layers)
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if error_of(best_first[:middle]) <= max_error:
            fits = middle
        else:
            breaks = middle
    taken = {layer.node for layer in best_first[:fits]}
    return Chosen([layer for layer in layers if layer.node in taken], alone)
