"""Whether an output, loaded in a process that knows nothing of the module, answers as the model did here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.sources import OutputFormat
from plimsoll_job.child import run_child
from plimsoll_job.errors import UserError
from plimsoll_job.export.alike import counting, difference, scale_of
from plimsoll_job.export.fresh import PEAK_MEMORY_BYTES
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.memory import count_beside, give_back

TORCH_FILE = "model.pt2"
DIRECTORY = "huggingface"
#: What of the artifact is loaded, by format.
LOADED = {
    OutputFormat.ONNX: MODEL_FILE,
    OutputFormat.TORCH_EXPORT: TORCH_FILE,
    OutputFormat.HUGGING_FACE: DIRECTORY,
}

Answer = Callable[[Arrays], NDArray[Any]]


def expected_answers(answer: Answer, batches: Sequence[Arrays]) -> list[NDArray[Any]]:
    """Return the model's own answers to the batches, which an output is to give, too."""
    return [answer(batch) for batch in batches]


def check_reload(
    directory: Path, kind: OutputFormat, task: str, batches: Sequence[Arrays], expected: Sequence[NDArray[Any]]
) -> None:
    """UserError when the directory's output of that format cannot be loaded in a fresh process, or answers otherwise.

    The fresh process holds the weights beside what this one holds.
    """
    give_back()
    answers = _answers_elsewhere(directory / LOADED[kind], kind, task, batches)
    wanted = [counting(answer, batch) for answer, batch in zip(expected, batches, strict=True)]
    scale = scale_of(wanted)
    for batch, answer, given in zip(batches, wanted, answers, strict=True):
        problem = difference(answer, counting(given, batch), scale)
        if problem is not None:
            raise UserError(
                f"spec.output.formats: the {kind} output, loaded in a fresh process, answers otherwise than the model "
                f"at batch {len(answer)}: {problem}",
                reason="ReloadDiffers",
            )


def _answers_elsewhere(loaded: Path, kind: OutputFormat, task: str, batches: Sequence[Arrays]) -> list[NDArray[Any]]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        arrays = {f"{batch}/{name}": array for batch, inputs in enumerate(batches) for name, array in inputs.items()}
        np.savez(root / "inputs.npz", **arrays)  # type: ignore[arg-type]
        run_child(
            "plimsoll_job.export.fresh",
            [kind, loaded, task, root / "inputs.npz", root / "outputs.npz"],
            does=f"loads the {kind} output",
            refusal=f"spec.output.formats: the {kind} output cannot be loaded in a fresh process",
            reason="ReloadFails",
        )
        with np.load(root / "outputs.npz", allow_pickle=False) as archive:
            count_beside(int(archive[PEAK_MEMORY_BYTES]))
            return [archive[str(batch)] for batch in range(len(batches))]
