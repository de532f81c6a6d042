"""python -m plimsoll_job.export.fresh FORMAT PATH TASK INPUTS OUTPUTS: load one output anew, and let it answer.

A process of its own, so that nothing of the module that was exported is left. INPUTS and OUTPUTS are .npz, of arrays
`<batch>/<input>` and `<batch>`; OUTPUTS also tells the most memory held. ONNX is loaded without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.memory import keep_tensors_apart, peak_memory_bytes
from plimsoll_job.parent import end_with_parent

#: The array of OUTPUTS that is no answer. Not printed: a library may print too, also at exit.
PEAK_MEMORY_BYTES = "peak_memory_bytes"
#: From here on a weight counts as large: of a transformer most are smaller than a tensor that is large in training, and
#: what the kernel takes to give memory for each is nothing where a model answers once.
WEIGHT_BYTES = 512 << 10

Arrays = dict[str, NDArray[Any]]
Answer = Callable[[Arrays], NDArray[Any]]


def open_onnx(path: Path, _: str) -> Answer:
    """Return what lets ONNX Runtime answer."""
    from plimsoll_job.sessions import open_restoring  # noqa: PLC0415 — each format imports its own runtime

    session = open_restoring(path)

    def answer(inputs: Arrays) -> NDArray[Any]:
        (output,) = session.run(None, inputs)
        return np.asarray(output)

    return answer


def open_torch_export(path: Path, _: str) -> Answer:
    """Return what lets the exported program answer. It is a file of our own: loading one runs code."""
    import torch  # noqa: PLC0415 — as above

    return _answers_of(torch.export.load(path).module())


def open_huggingface(path: Path, task: str) -> Answer:
    """Return what lets transformers' model of the directory answer."""
    from plimsoll_job.load.architectures.huggingface import build_huggingface  # noqa: PLC0415 — as above
    from plimsoll_job.load.directory import read_directory  # noqa: PLC0415 — as above
    from plimsoll_job.load.store import Store  # noqa: PLC0415 — as above

    return _answers_of(build_huggingface(read_directory("pvc://output", Store(mounts={"output": path})), task))


def _answers_of(module: Any) -> Answer:
    import torch  # noqa: PLC0415 — as above

    torch.set_num_threads(1)

    def answer(inputs: Arrays) -> NDArray[Any]:
        with torch.no_grad():
            output: NDArray[Any] = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        return output

    return answer


OPENERS = {"Onnx": open_onnx, "TorchExport": open_torch_export, "HuggingFace": open_huggingface}


def main() -> None:
    """Answer every batch."""
    end_with_parent()
    keep_tensors_apart(WEIGHT_BYTES)
    kind, path, task, inputs, outputs = sys.argv[1:]
    answer = OPENERS[kind](Path(path), task)
    batches: dict[str, Arrays] = {}
    with np.load(inputs, allow_pickle=False) as archive:
        for key in archive.files:
            batch, _, name = key.partition("/")
            batches.setdefault(batch, {})[name] = archive[key]
    answers = {batch: answer(given) for batch, given in batches.items()}
    np.savez(outputs, **answers, **{PEAK_MEMORY_BYTES: peak_memory_bytes()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
