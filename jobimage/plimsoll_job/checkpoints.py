"""Where a training stands, kept in the store after its epochs and, of long ones, within: a killed pod loses minutes.

<directory>/epoch-000007/ holds tensors as safetensors, the rest as JSON and other files as they are; only the newest
stays. One within an epoch has the number of its batches behind that of the epochs. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from plimsoll_api.model import canonical_json
from plimsoll_job.publish.files import DIGESTS_FILE, Content, is_whole, write_sealed

TENSORS_FILE = "tensors.safetensors"
FACTS_FILE = "facts.json"
OWN_FILES = {TENSORS_FILE, FACTS_FILE, DIGESTS_FILE}
#: Epochs that are shorter are not worth a save each: a kill then loses this much.
SECONDS_BETWEEN_SAVES = 1.0
#: Within an epoch, whose end is a better place.
SECONDS_WITHIN_EPOCH = 300.0


@dataclass(frozen=True)
class Checkpoint:
    """A training after so many epochs, and batches of the next: its tensors by name, facts of JSON types, files."""

    epoch: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    batches: int = 0

    @property
    def name(self) -> str:
        """The name of its directory: those of later ones come later in the alphabet."""
        return f"epoch-{self.epoch:06d}" + (f"-{self.batches:09d}" if self.batches else "")


@dataclass
class Checkpoints:
    """The checkpoints of one training; a damaged one is passed over."""

    directory: Path
    seconds_between: float = SECONDS_BETWEEN_SAVES
    seconds_within: float = SECONDS_WITHIN_EPOCH
    clock: Callable[[], float] = time.monotonic
    _saved: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved = self.clock()

    def due(self, *, within_epoch: bool = False) -> bool:
        """Return whether the last save is long enough ago."""
        return self.clock() - self._saved >= (self.seconds_within if within_epoch else self.seconds_between)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep the checkpoint in place of those before it."""
        target = self.directory / checkpoint.name
        files: dict[str, Content] = {
            TENSORS_FILE: tensor_writer(checkpoint.tensors),
            FACTS_FILE: canonical_json(checkpoint.facts),
            **checkpoint.files,
        }
        if target.exists():
            shutil.rmtree(target)
        write_sealed(target, files)
        for other in self.directory.iterdir():
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        self._saved = self.clock()

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none."""
        for directory in sorted(self.directory.glob("epoch-*"), reverse=True):
            if not is_whole(directory):
                continue
            try:
                facts = json.loads((directory / FACTS_FILE).read_bytes())
                epoch, _, batches = directory.name.removeprefix("epoch-").partition("-")
                return Checkpoint(
                    epoch=int(epoch),
                    batches=int(batches or 0),
                    tensors=read_tensors(directory / TENSORS_FILE),
                    facts=facts,
                    files={path.name: path for path in directory.iterdir() if path.name not in OWN_FILES},
                )
            except (OSError, ValueError, SafetensorError):
                continue
        return None


def tensor_writer(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Callable[[Path], None]:
    """Return what writes the tensors to a path as safetensors; those that share memory are written one by one."""

    def write(path: Path) -> None:
        storages: set[int] = set()
        separate: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            storage = tensor.untyped_storage().data_ptr()
            separate[name] = tensor.detach().clone() if storage in storages else tensor.detach().contiguous()
            storages.add(storage)
        save_file(separate, path, metadata)

    return write


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, in memory of their own."""
    tensors: dict[str, torch.Tensor] = load_file(path, backend="pread")
    return tensors
