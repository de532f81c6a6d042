"""Where the tokens of a batch lie in a tensor that a model makes of it, whatever else its axes run over."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

#: Positions that models put before or after the tokens of a sample, such as one that stands for its class.
EXTRAS = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2))


class Over(Enum):
    """What an axis, or a part of one, runs over."""

    SAMPLES = "samples"
    TOKENS = "tokens"


#: The parts of an axis, the slowest first; a number is that of what is no token, and none says that all of it is.
Axis = tuple[Over | int, ...]
FREE: Axis = ()


@dataclass(frozen=True)
class Layout:
    """What the axes of a tensor run over, with the positions that are no tokens before and after those of a sample."""

    axes: tuple[Axis, ...]
    before: int = 0
    after: int = 0

    def counted(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return where the tensor holds what the mask [samples, tokens] leaves; of size 1 along axes that are free."""
        mask = np.pad(mask, ((0, 0), (self.before, self.after)), constant_values=True)
        sizes = {Over.SAMPLES: mask.shape[0], Over.TOKENS: mask.shape[1]}
        by_axis = [[sizes[part] if isinstance(part, Over) else part for part in axis or (1,)] for axis in self.axes]
        parts = [part for axis in self.axes for part in axis or (1,)]
        full = [size for some in by_axis for size in some]
        sample_at = parts.index(Over.SAMPLES)
        counted = np.ones(full, dtype=np.bool_)
        for token_at in (at for at, part in enumerate(parts) if part is Over.TOKENS):
            shape = [size if at in {sample_at, token_at} else 1 for at, size in enumerate(full)]
            counted &= (mask if sample_at < token_at else mask.T).reshape(shape)
        return counted.reshape([math.prod(some) for some in by_axis])

    def fits(self, shape: Sequence[int], samples: int, tokens: int) -> bool:
        """Return whether a tensor of that shape can be laid out so."""
        found = self.counted(np.ones((samples, tokens), dtype=np.bool_)).shape
        return len(found) == len(shape) and all(
            axis is FREE or size == given for axis, size, given in zip(self.axes, found, shape, strict=True)
        )


def layouts_of(
    shape: Sequence[int], samples: int, tokens: int, free: Sequence[int] = (), most: int = 12
) -> list[Layout]:
    """Return the layouts that a tensor of that shape may have, the likeliest first; the axes of `free` are free.

    Where two axes may both run over tokens, as in scores of attention, that comes first: more is left out then.
    """
    held_free = {axis % len(shape) for axis in free}
    found: list[Layout] = []
    for before, after in EXTRAS:
        length = tokens + before + after
        options = [
            [FREE] if at in held_free else [FREE, *_axes_of(size, at, samples, length)] for at, size in enumerate(shape)
        ]
        fitting = [axes for axes in itertools.product(*options) if _is_whole(axes)]
        found += [Layout(axes, before, after) for axes in sorted(fitting, key=_unlikeliness)]
    return found[:most]


def settle(candidates: dict[str, list[Layout]], holds: Callable[[dict[str, Layout]], bool]) -> dict[str, Layout]:
    """Return, of each name, the first layout that holds; `holds` tells whether several do at once.

    Halves are asked where not all do, so that few questions are enough where most do or most do not.
    """
    settled: dict[str, Layout] = {}
    waiting = {name: list(some) for name, some in candidates.items() if some}
    while waiting:
        asked = {name: some.pop(0) for name, some in waiting.items()}
        settled |= _holding(asked, holds)
        waiting = {name: some for name, some in waiting.items() if some and name not in settled}
    return settled


def _holding(asked: dict[str, Layout], holds: Callable[[dict[str, Layout]], bool]) -> dict[str, Layout]:
    if not asked or holds(asked):
        return asked
    if len(asked) == 1:
        return {}
    names = list(asked)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return _holding({name: asked[name] for name in halves[0]}, holds) | _holding(
        {name: asked[name] for name in halves[1]}, holds
    )


def _axes_of(size: int, at: int, samples: int, length: int) -> Iterator[Axis]:
    """Yield what an axis of that size may run over besides anything else."""
    if size == samples:
        yield (Over.SAMPLES,)
    if size == length:
        yield (Over.TOKENS,)
    if size == samples * length:
        yield (Over.SAMPLES, Over.TOKENS)
        yield (Over.TOKENS, Over.SAMPLES)
    elif at == 0 and size > samples and size % samples == 0:
        # Such as the heads of each sample.
        yield (Over.SAMPLES, size // samples)
        yield (size // samples, Over.SAMPLES)


def _is_whole(axes: Sequence[Axis]) -> bool:
    parts = [part for axis in axes for part in axis]
    return parts.count(Over.SAMPLES) == 1 and Over.TOKENS in parts


def _unlikeliness(axes: Sequence[Axis]) -> tuple[int, int, int]:
    parts = [part for axis in axes for part in axis]
    return -parts.count(Over.TOKENS), len(parts), parts.index(Over.SAMPLES)
