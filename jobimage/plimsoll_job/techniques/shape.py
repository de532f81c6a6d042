"""The shape that all techniques share: what goes in, what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from plimsoll_api.artifact import Leftover
from plimsoll_api.sources import Architecture, Task
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import SourceModel
from plimsoll_job.progress import Reporter
from plimsoll_job.publish.files import digest_of_file
from plimsoll_job.ranks import Ranks
from plimsoll_job.scratch import HeldFile


@dataclass(frozen=True)
class Cut:
    """Output channels of one layer, deleted with all that depends on them.

    They are counted as the turns before left them; cuts of one turn are made at once.
    """

    layer: str
    channels: tuple[int, ...]
    turn: int = 0


@dataclass(frozen=True)
class Split:
    """One layer replaced by a product of smaller ones, of one rank for a matrix, of (in, out) ranks for Tucker-2.

    A Tucker-2 rank as high as the channels leaves that side without a factor of its own.
    """

    layer: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Fresh:
    """The whole module replaced by that of another architecture."""

    architecture: Architecture


#: What changes the structure of a module. All of it is told by names and numbers, so that it can be done again.
Change = Cut | Split | Fresh


def told_of_changes(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return the changes in their order as JSON has them, each under the name of its kind."""
    return [{type(one).__name__.lower(): _wire(one)} for one in changes]


def _wire(change: Change) -> dict[str, Any]:
    if isinstance(change, Fresh):
        return {"architecture": change.architecture.to_wire()}
    return asdict(change)


@dataclass(frozen=True)
class Candidate:
    """The model on its way; a technique may change the module that it is given, or let go of its weights.

    `changes` made the module out of the factory's, in this order. The zeros of the parameters named in `sparse` stay
    zero. `graph` is the ONNX model once a step has left torch; the module then tells parameters and operations only,
    `zero_weights` how many weights the graph's number format stores as zero, and `notes` what a person should know
    of how it was exported.
    """

    module: nn.Module
    changes: tuple[Change, ...] = ()
    sparse: frozenset[str] = frozenset()
    graph: HeldFile | None = None
    zero_weights: int = 0
    notes: tuple[str, ...] = ()

    def let_go(self) -> None:
        """Free the weights, once another candidate took the place of this one, which callers still refer to."""
        self.module.to("meta")

    def fingerprint(self) -> str:
        """Return a digest of all weights: two candidates of the same fingerprint are the same model."""
        digest = hashlib.sha256(digest_of_file(self.graph.path).encode() if self.graph else b"")
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                if tensor.ndim
                else str(tensor.item()).encode()
            )
        return digest.hexdigest()


@dataclass(frozen=True)
class Bench:
    """What a technique may use besides the candidate."""

    source: SourceModel
    signature: Signature
    train: Samples | None
    calibration: Samples | None
    seed: int
    spec_field: str
    reporter: Reporter
    task: Task = field(kw_only=True)
    #: How many steps have changed the model before this one.
    steps_before: int = 0
    #: Where a training keeps how far it is; nowhere when None.
    checkpoints: Checkpoints | None = None
    ranks: Ranks = field(default_factory=Ranks.of_environment)
    #: Has the other processes train beside this one, the first, what the step trains now.
    announce: Callable[[], None] = lambda: None
    #: Reads the teacher that the step names; the model as given is the teacher when None.
    load_teacher: Callable[[], SourceModel] | None = None

    def need_train(self) -> Samples:
        """Return the training data; UserError when the job has none."""
        if self.train is None:
            raise UserError(f"spec.data.train: {self.spec_field} needs training data")
        return self.train

    def need_calibration(self) -> Samples:
        """Return the calibration data; UserError when the job has none."""
        if self.calibration is None:
            raise UserError(f"spec.data.calibration: {self.spec_field} needs calibration data")
        return self.calibration


@dataclass(frozen=True)
class Applied:
    """What a technique made, and what it tells of itself; `may_stay` where it decided to leave the model as it is.

    `left` has what it could not change and why, `reached` the names of layers, or of their weights, that it could have
    changed. What it neither changed nor could have is told as left in any case, with the shares that all have.
    """

    candidate: Candidate
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left: tuple[Leftover, ...] = ()
    reached: frozenset[str] = frozenset()
    may_stay: bool = False
