"""Where a model decides by the values of its inputs: Python sees numbers there, and a trace keeps those that it met."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

#: What hands a tensor's values to Python.
READS = frozenset(
    {"__bool__", "__int__", "__float__", "__index__", "__array__", "item", "tolist", "numpy", "equal", "allclose"}
)
#: What takes the shape of a tensor only.
SHAPED = ("_like", "_as")
#: Below these lies no model's code: torch's does the bidding of a model's, ours asks it.
TORCH, OURS = (f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))
PLACES_SHOWN = 3


@dataclass(frozen=True, order=True)
class Place:
    """A line of a model's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        code = linecache.getline(self.file, self.line).strip()
        return f"{Path(self.file).name}:{self.line}, in {self.function}" + (f", `{code}`" if code else "")


#: What was read at each place: numbers as text, or nothing where they are too many to tell.
Read = dict[Place, set[str]]


@dataclass
class Decisions:
    """What a model read of its inputs' values when it was traced, and when it answered what is compared.

    `kept` are the places of which the tracer says that it keeps what Python computed there of a tensor.
    """

    kept: set[Place] = field(default_factory=set)
    traced: Read = field(default_factory=dict)
    compared: Read = field(default_factory=dict)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of an export that answers as its model, where that decides by values."""
        places = sorted(self.kept & set(self.traced))
        if not places:
            return ()
        return (
            "The model decides by values of its inputs, and the export keeps what it decided for the samples that were "
            f"traced: {self._told(places)}. All samples compared are answered alike; others, for which it decides "
            "otherwise, may not be.",
        )

    def otherwise(self) -> bool:
        """Return whether the model is known to decide some of what is compared otherwise than what was traced."""
        read = ((self.traced[place], self.compared.get(place, set())) for place in self.kept & set(self.traced))
        return any("" not in traced | compared and not compared <= traced for traced, compared in read)

    def read(self) -> str:
        """Return where values were read when the model was traced, nothing where none were."""
        return f"; it decides by values of its inputs: {self._told(self.traced)}" if self.traced else ""

    def cause(self) -> str:
        """Return what may have made an export answer otherwise than its model, nothing where no code is known to."""
        read = set(self.traced) | set(self.compared)
        if places := sorted(self.kept & read or read):
            return (
                "; the model decides by values of its inputs, of which an export keeps what it met when it was traced: "
                f"{self._told(places)}. Compute both ways and choose by torch.where, in a mixture all experts, or "
                "decide outside the model"
            )
        if self.kept:
            return (
                f"; an export keeps as a constant what Python computes of a tensor: {_listed(map(str, self.kept))}. "
                "Take sizes from its shape, not by len, and do the same for any number of rows; in a mixture ask all "
                "experts"
            )
        return ""

    def _told(self, places: Iterable[Place]) -> str:
        return _listed(f"{place}{self._values(place)}" for place in places)

    def _values(self, place: Place) -> str:
        traced, others = (sorted(read.get(place, ())) for read in (self.traced, self.compared))
        if not traced or "" in (*traced, *others):
            return ""
        beside = [value for value in others if value not in traced]
        return f" ({' and '.join(traced)} when traced" + (f", else {' or '.join(beside)} too)" if beside else ")")


class Watch(TorchFunctionMode):
    """Notes in `read` where values that come of these inputs are handed to Python, and which these are."""

    def __init__(self, inputs: Iterable[torch.Tensor], read: Read) -> None:
        super().__init__()
        self._read = read
        self._known = WeakIdKeyDictionary(dict.fromkeys(inputs))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function; what it makes of known values is known."""
        given = (args, tuple((kwargs or {}).values()))
        known = any(tensor in self._known for tensor in _tensors(given))
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if known and name in READS:
            values = self._read.setdefault(_place(sys._getframe(1)), set())
            values.add(str(result) if isinstance(result, bool | int) else "")
        elif known and not name.endswith(SHAPED) and not name.startswith("new_"):
            written = args[:1] if name == "__setitem__" else result
            self._known.update(dict.fromkeys(_tensors(written)))
        return result


@contextlib.contextmanager
def keeping(kept: set[Place]) -> Iterator[None]:
    """Note where the tracer warns of what it keeps, for a while; other warnings are held back."""

    def note(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, TracerWarning):
            kept.add(_place(sys._getframe(1)))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield


def _place(frame: FrameType | None) -> Place:
    """Return the innermost line of the model's code, of torch's where no other is on the way from ours."""
    of_torch = None
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        file = frame.f_code.co_filename
        if file.startswith(TORCH):
            of_torch = of_torch or frame
        elif file != warnings.__file__:
            return _place_of(frame)
        frame = frame.f_back
    return _place_of(of_torch) if of_torch else Place("torch", 0, "its own code")


def _place_of(frame: FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def _listed(told: Iterable[str]) -> str:
    places = sorted(told)
    more = len(places) - PLACES_SHOWN
    return "; ".join(places[:PLACES_SHOWN]) + (f" and {more} more" if more > 0 else "")
