"""Whether an output, loaded in a process that knows nothing of the module, answers as the model did here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.sources import OutputFormat
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.export.alike import counting, difference, scale_of
from plimsoll_job.export.fresh import PEAK_MEMORY_BYTES
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.memory import count_beside, give_back
from plimsoll_job.parent import child_arguments

TIMEOUT_SECONDS = 1_800
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
    with tempfile.TemporaryDirectory() as directory, child_arguments(OMP_WAIT_POLICY="PASSIVE") as ending_with_us:
        root = Path(directory)
        arrays = {f"{batch}/{name}": array for batch, inputs in enumerate(batches) for name, array in inputs.items()}
        np.savez(root / "inputs.npz", **arrays)  # type: ignore[arg-type]
        command = [sys.executable, "-m", "plimsoll_job.export.fresh", kind, str(loaded), task]
        try:
            ended = subprocess.run(
                [*command, str(root / "inputs.npz"), str(root / "outputs.npz")],
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
                **ending_with_us,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"the {kind} output was not loaded in {TIMEOUT_SECONDS} s", reason="Slow") from error
        if ended.returncode < 0:
            # Killed, mostly for memory: the file may be as good as any.
            raise TransientError(
                f"the process that loads the {kind} output was ended by signal {-ended.returncode}", reason="Killed"
            )
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or ["no word of why"]
            raise UserError(
                f"spec.output.formats: the {kind} output cannot be loaded in a fresh process: {last[0]}",
                reason="ReloadFails",
            )
        with np.load(root / "outputs.npz", allow_pickle=False) as archive:
            count_beside(int(archive[PEAK_MEMORY_BYTES]))
            return [archive[str(batch)] for batch in range(len(batches))]
