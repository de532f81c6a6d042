"""Whether an output, loaded in a process that knows nothing of the module, answers as the model did here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.sources import OutputFormat
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.export.fresh import PEAK_MEMORY_BYTES
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.memory import count_beside, give_back
from plimsoll_job.parent import child_arguments

BATCHES = (1, 5)
#: The largest difference of an answer, as a share of the largest answer to any batch: a single answer may be next to
#: zero by chance, and rounding does not shrink with it. Two runtimes add in different orders: in float32,
#: EfficientNet-B6 differs by 2e-4 for that alone. What an export gets wrong is larger.
TOLERANCE = 1e-3
#: Answers below it count as zero: of those there is no share.
ZERO = 1e-12
TIMEOUT_SECONDS = 1_800
TORCH_FILE = "model.pt2"
DIRECTORY = "huggingface"
#: What of the artifact is loaded, by format.
LOADED = {
    OutputFormat.ONNX: MODEL_FILE,
    OutputFormat.TORCH_EXPORT: TORCH_FILE,
    OutputFormat.HUGGING_FACE: DIRECTORY,
}

#: By the number of samples, as text.
Answers = Mapping[str, NDArray[Any]]


def expected_answers(answer: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]], signature: Signature) -> Answers:
    """Return the model's own answers, which an output is to give, too."""
    return {batch: answer(inputs) for batch, inputs in _batches(signature).items()}


def check_reload(directory: Path, kind: OutputFormat, task: str, signature: Signature, expected: Answers) -> None:
    """UserError when the directory's output of that format cannot be loaded in a fresh process, or answers otherwise.

    The fresh process holds the weights beside what this one holds.
    """
    give_back()
    answers = _answers_elsewhere(directory / LOADED[kind], kind, task, _batches(signature))
    largest = largest_of(expected.values())
    for batch, answer in expected.items():
        problem = difference(answer, answers[batch], largest)
        if problem is not None:
            raise UserError(
                f"spec.output.formats: the {kind} output, loaded in a fresh process, answers otherwise than the model "
                f"at batch {batch}: {problem}",
                reason="ReloadDiffers",
            )


def largest_of(answers: Iterable[NDArray[Any]]) -> float:
    """Return the largest absolute answer to any of the batches, which differences are shares of."""
    return max(float(np.abs(answer).max()) for answer in answers)


def difference(expected: NDArray[Any], given: NDArray[Any], largest: float) -> str | None:
    """Return how the answers differ by more than the tolerated share of the largest and where, None if they do not."""
    if expected.shape != given.shape:
        return f"the output has the shape {list(given.shape)}, expected {list(expected.shape)}"
    for whose, answers in (("the output", given), ("the model's own answer", expected)):
        if not np.isfinite(answers).all():
            return f"{whose} holds NaN or infinite numbers"
    distance = np.abs(given.astype(np.float64) - expected)
    if distance.max() <= TOLERANCE * max(ZERO, largest):
        return None
    at = tuple(map(int, np.unravel_index(int(distance.argmax()), distance.shape)))
    place = ", ".join(map(str, at[1:]))
    return (
        f"the largest difference is {distance.max():.3g}, at output {place} of sample {at[0]}: "
        f"{given[at]:.6g}, expected {expected[at]:.6g}"
    )


def _batches(signature: Signature) -> dict[str, dict[str, NDArray[Any]]]:
    return {
        str(batch): {
            one.name: tensor.numpy() for one, tensor in zip(signature, example_of(signature, batch), strict=True)
        }
        for batch in BATCHES
    }


def _answers_elsewhere(
    loaded: Path, kind: OutputFormat, task: str, batches: Mapping[str, Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    with tempfile.TemporaryDirectory() as directory, child_arguments(OMP_WAIT_POLICY="PASSIVE") as ending_with_us:
        root = Path(directory)
        arrays = {f"{batch}/{name}": array for batch, inputs in batches.items() for name, array in inputs.items()}
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
            return {batch: archive[batch] for batch in batches}
