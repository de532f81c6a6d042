"""Weights from safetensors files; no other format is read, and of a file never more than what is asked for."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from plimsoll_job.errors import TransientError, UserError

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_FIELD = "spec.model.uri"
NAMES_SHOWN = 5
#: What is said of a pickle, before how to write it again.
NEVER_LOADED = "a pickle, which can run any code and is never loaded; where you trust it"
#: Numbers that are looked at together.
PART = 1 << 20
#: Tensors that are read together, in bytes: in memory twice while they are loaded.
PART_BYTES = 32 << 20
#: How files of torch.save begin: a zip archive with a pickle in it, or, of old, a pickle of protocol 2 to 5.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class StoredWeights(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file by name, each read whenever it is asked for, into memory of its own.

    The file stays open: one that is renamed over it, or removed, does not matter. UserError when it is not a
    safetensors file, or was written to since.
    """

    def __init__(self, path: Path, uri: str) -> None:
        self._path, self._uri = path, uri
        with self._told():
            self._stamp = _stamp(path)
            # Of a mapped file, what was read would count as memory held beside what is made of it.
            self._file = safe_open(path, framework="pt", backend="pread")
            self._names = dict.fromkeys(self._file.keys())  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        with self._told():
            # A copy begins where torch's own tensors do: some kernels compute by what memory begins with.
            tensor: torch.Tensor = self._file.get_tensor(name).clone()  # type: ignore[no-untyped-call]
        if self._is_written_to():
            raise UserError(
                f"{WEIGHTS_FIELD}: {self._uri} was written to while the job used it; apply the job again, and leave "
                "the file as it is until it has ended",
                reason="SourceChanged",
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _is_written_to(self) -> bool:
        """Return whether the very file that was opened has changed; another that took its name is not ours."""
        try:
            (file, *before), (file_now, *now) = self._stamp, _stamp(self._path)
        except OSError:
            return False
        return file == file_now and before != now

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what is wrong with the file."""
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"{WEIGHTS_FIELD}: {self._uri} cannot be read now: {error}", reason="StoreUnreadable"
            ) from error
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
            if _is_pickle(self._path):
                raise UserError(
                    f"{WEIGHTS_FIELD}: {self._uri} is {NEVER_LOADED}, load it with torch.load and write its tensors "
                    "again with safetensors.torch.save_file",
                    reason="PickleRefused",
                ) from error
            raise UserError(
                f"{WEIGHTS_FIELD}: {self._uri} is not a safetensors file: {error}", reason="WeightsUnreadable"
            ) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(PICKLE_STARTS)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def check_numbers(weights: Mapping[str, torch.Tensor], uri: str) -> None:
    """UserError for numbers that are not finite."""
    for name, tensor in weights.items():
        # In parts: what tells of each number would be as large as all of them.
        parts = torch.split(tensor.flatten(), PART)
        if tensor.is_floating_point() and not all(torch.isfinite(part.float()).all() for part in parts):
            raise UserError(
                f"{WEIGHTS_FIELD}: tensor {name!r} of {uri} holds NaN or infinite numbers; what float32 cannot hold is "
                "infinite"
            )


def load_strictly(
    module: nn.Module, weights: Mapping[str, torch.Tensor], spec_field: str, unread: tuple[str, ...] = ()
) -> None:
    """Load the weights, in parts, but those whose names begin as in `unread`.

    Of tensors that are one in the module the file needs one name; safetensors' save_model writes no more. UserError
    that names missing, unexpected and wrongly shaped tensors, all at once, and integers in the place of numbers, as
    quantized files have them; and those that are one in the module and differ in the file.
    """
    expected = module.state_dict()
    shapes, kinds = {}, {}
    for name, tensor in weights.items():
        if not name.startswith(unread):
            shapes[name], kinds[name] = tensor.shape, tensor.dtype
    alike = tied(expected)
    wrong = [
        f"{name} is {list(shapes[name])} instead of {list(expected[name].shape)}"
        for name in expected
        if name in shapes and shapes[name] != expected[name].shape
    ]
    problems = {
        "missing": [name for names in alike if not any(one in shapes for one in names) for name in names],
        "unexpected": [name for name in shapes if name not in expected],
        "of the wrong shape": wrong,
        "of the wrong type": [
            f"{name} is {kinds[name]} instead of {expected[name].dtype}"
            for name in expected
            if name in kinds and expected[name].is_floating_point() and not kinds[name].is_floating_point
        ],
    }
    if any(problems.values()):
        if _load_by_own_code(module, weights):
            return
        raise UserError(f"{spec_field}: the weights do not fit the module; {told_of_tensors(problems)}")
    _check_copies(alike, weights, spec_field)
    together = sum(tensor.nbytes for tensor in expected.values()) if _loads_by_own_code(module) else PART_BYTES
    for names in _parts({name: tensor for name, tensor in expected.items() if name in shapes}, together):
        part: Any = OrderedDict((name, weights[name]) for name in names)
        # Some modules ask their state for its version, which safetensors does not keep.
        part._metadata = getattr(expected, "_metadata", {})
        module.load_state_dict(part, strict=False)


def tied(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return the names of each tensor, several where layers share it, in their order."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        # A tensor without numbers has no memory, and is none that others share.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else name
        groups.setdefault(place, []).append(name)
    return list(groups.values())


def _check_copies(alike: Iterable[Sequence[str]], weights: Mapping[str, torch.Tensor], spec_field: str) -> None:
    """UserError where the file holds several tensors that are one in the module, and they differ."""
    for names in alike:
        first, *others = [one for one in names if one in weights]
        for other in others:
            if not torch.equal(weights[first], weights[other]):
                raise UserError(
                    f"{spec_field}: {first} and {other} are one tensor in the module, and differ in the file; save the "
                    "weights of the module that the factory returns, or have it return one that does not tie them"
                )


def _load_by_own_code(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the module itself has loaded weights of other names, such as those that it had of old."""
    if not _loads_by_own_code(module):
        return False
    try:
        module.load_state_dict(dict(weights), strict=True)
    # What does not fit raises RuntimeError, and a module's own code anything.
    except Exception:
        return False
    return True


def told_of_tensors(problems: Mapping[str, Sequence[str]]) -> str:
    """Return what is wrong with which tensors, in words; of each kind of problem the first few."""
    return "tensors " + "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)


def _loads_by_own_code(module: nn.Module) -> bool:
    """Return whether code of the model's own takes part in loading: it may look for any of the tensors."""
    return any(
        one._load_state_dict_pre_hooks
        or one._load_state_dict_post_hooks
        or not all(
            method.__module__.startswith("torch.nn.")
            for method in (type(one).load_state_dict, type(one)._load_from_state_dict)
        )
        for one in module.modules()
    )


def _parts(tensors: Mapping[str, torch.Tensor], part_bytes: int) -> Iterator[list[str]]:
    """Yield the names in runs of at most so many bytes, and of one tensor at least."""
    run: list[str] = []
    run_bytes = 0
    for name, tensor in tensors.items():
        if run and run_bytes + tensor.nbytes > part_bytes:
            yield run
            run, run_bytes = [], 0
        run.append(name)
        run_bytes += tensor.nbytes
    yield run


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
