"""Finished work of one plan, kept in the store so that a pod that was killed is gone on from.

<output>/work/<plan digest>/step-00/ … holds the candidate after each step: its weights as safetensors, and how its
module came from the factory's as JSON. step-00-training/ holds where a training inside the step stands. Nothing is ever
unpickled. inputs.json tells the contents of what all that was made of, done.json the artifacts once all is published,
peak-memory-0.json the most memory that the process of rank 0 held in any of the pods.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from plimsoll_api.artifact import ArtifactRef, StepRecord
from plimsoll_api.model import Model, canonical_json
from plimsoll_job.boundary import boundary
from plimsoll_job.checkpoints import Checkpoints, tensor_writer
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.weights import StoredWeights, load_strictly
from plimsoll_job.publish.files import is_whole, write_file, write_sealed
from plimsoll_job.scratch import HeldFile
from plimsoll_job.techniques.prune.fitting import NotCutError
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Candidate, Change

STATE_FILE = "state.json"
WEIGHTS_FILE = "model.safetensors"
GRAPH_FILE = "model.onnx"
DONE_FILE = "done.json"
INPUTS_FILE = "inputs.json"
#: What stands in the way of going on with what was kept: the step is taken again then.
UNREADABLE = (OSError, UserError, TransientError, ValueError, KeyError, AttributeError, RuntimeError, NotCutError)


class SavedStep(Model):
    """The state after one step."""

    changes: tuple[Change, ...]
    sparse: list[str]
    records: list[StepRecord]
    has_graph: bool = False
    zero_weights: int = 0
    notes: tuple[str, ...] = ()


class Done(Model):
    """What a finished plan came to."""

    baseline: ArtifactRef
    candidate: ArtifactRef


class PeakMemory(Model):
    """The most memory that was held."""

    held_bytes: int


@dataclass(frozen=True)
class Work:
    """The work directory of one plan."""

    directory: Path
    signature: Signature = ()

    def drop_unless_of(self, inputs: Mapping[str, str]) -> None:
        """Drop what was made of other inputs than these, told by their digests: a plan names only where they lie."""
        file = self.directory / INPUTS_FILE
        if self.directory.exists() and not (file.exists() and file.read_bytes() == canonical_json(dict(inputs))):
            shutil.rmtree(self.directory)

    def begin(self, inputs: Mapping[str, str]) -> None:
        """Keep what tells the inputs that all is made of."""
        write_file(self.directory / INPUTS_FILE, canonical_json(dict(inputs)))

    def save(self, index: int, candidate: Candidate, records: list[StepRecord]) -> None:
        """Keep the candidate as it is after the step of this index."""
        state = SavedStep(
            changes=candidate.changes,
            sparse=sorted(candidate.sparse),
            records=records,
            has_graph=candidate.graph is not None,
            zero_weights=candidate.zero_weights,
            notes=candidate.notes,
        )
        weights = tensor_writer(candidate.module.state_dict())
        graph = {} if candidate.graph is None else {GRAPH_FILE: candidate.graph.path}
        write_sealed(self._step(index), {WEIGHTS_FILE: weights, STATE_FILE: state.canonical_json(), **graph})
        shutil.rmtree(self._training(index), ignore_errors=True)

    def checkpoints(self, index: int) -> Checkpoints:
        """Return where a training inside the step of this index is kept."""
        return Checkpoints(self._training(index))

    def begun(self) -> bool:
        """Return whether anything of the plan is kept already."""
        return any(self.directory.glob("step-*"))

    def resume(self, steps: int, source: SourceModel) -> tuple[int, Candidate, list[StepRecord]]:
        """Return the number of finished steps, the candidate after them and their records; pass over damaged states."""
        for finished in range(steps, 0, -1):
            saved = self._read(finished - 1, source)
            if saved is not None:
                return finished, *saved
        return 0, Candidate(source.take()), []

    def finish(self, done: Done) -> None:
        """Remember the artifacts, and drop the states that are no longer needed."""
        write_file(self.directory / DONE_FILE, done.canonical_json())
        for step in self.directory.glob("step-*"):
            shutil.rmtree(step, ignore_errors=True)

    def finished(self) -> Done | None:
        """Return what the plan came to, None while it is not finished."""
        try:
            return Done.model_validate_json((self.directory / DONE_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def keep_peak_memory(self, held_bytes: int, rank: int = 0) -> int:
        """Keep the most memory that the process of this rank held in any pod of the plan, and return it, in bytes."""
        file = self.directory / f"peak-memory-{rank}.json"
        try:
            kept_bytes = PeakMemory.model_validate_json(file.read_bytes()).held_bytes
        except (OSError, ValidationError):
            kept_bytes = 0
        if held_bytes > kept_bytes:
            write_file(file, PeakMemory(held_bytes=held_bytes).canonical_json())
        return max(held_bytes, kept_bytes)

    def _step(self, index: int) -> Path:
        return self.directory / f"step-{index:02d}"

    def _training(self, index: int) -> Path:
        return self.directory / f"step-{index:02d}-training"

    def _read(self, index: int, source: SourceModel) -> tuple[Candidate, list[StepRecord]] | None:
        directory = self._step(index)
        if not is_whole(directory):
            return None
        try:
            state = SavedStep.model_validate_json((directory / STATE_FILE).read_bytes())
            graph = HeldFile(directory / GRAPH_FILE) if state.has_graph else None
            with boundary("work directory", "it cannot be gone on with"):
                module = replay(source.take(), self.signature, state.changes)
                load_strictly(module, StoredWeights(directory / WEIGHTS_FILE, "work directory"), "work directory")
        except UNREADABLE:
            return None
        sparse = frozenset(state.sparse)
        return Candidate(module, state.changes, sparse, graph, state.zero_weights, state.notes), state.records
