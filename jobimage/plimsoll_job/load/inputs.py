"""What goes into a model: named arrays with one entry a sample, in the order in which the module takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

#: The name of the only input of a model that takes one array.
SINGLE_INPUT = "inputs"
#: Samples of an example: two, so that what mixes them shows.
BATCH = 2


@dataclass(frozen=True)
class Input:
    """One input: its name in the artifact, the shape of one sample, NumPy's name of its element type.

    An input of integers takes those from 0 to below `values`. With `any_length` the first dimension of a sample,
    the number of its tokens, may be another one at each call. `samples` are some of the job's own, [n, *shape], the
    same ones in each input of a model; none where the job gives no data. An `example` is of so many.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    values: int = 1
    any_length: bool = False
    samples: NDArray[Any] | None = field(default=None, compare=False, repr=False)
    example: int = BATCH


#: All inputs of a model, in the order of the arguments of its module.
Signature = tuple[Input, ...]

#: The arrays of some samples, [n, …] each, by the names and in the order of the signature.
Arrays = Mapping[str, NDArray[Any]]


def single(shape: tuple[int, ...]) -> Signature:
    """Return the signature of a model that takes one array of numbers."""
    return (Input(SINGLE_INPUT, shape),)
