"""The model in every format that the job asks for, each as files of the artifact."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors
from torch import nn

from plimsoll_api.artifact import CHANGES_FILE, MODEL_FILE
from plimsoll_api.model import canonical_json
from plimsoll_api.sources import OutputFormat
from plimsoll_job.errors import UserError
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.export.reload import DIRECTORY, TORCH_FILE, check_reload
from plimsoll_job.figures import example_of
from plimsoll_job.load.architectures.wrapped import PREFIX
from plimsoll_job.load.directory import CONFIG_FILE
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.weights import WEIGHTS_FILE
from plimsoll_job.sessions import open_session
from plimsoll_job.techniques.shape import Candidate, told_of_changes


def write_outputs(
    candidate: Candidate, source: SourceModel, signature: Signature, task: str, formats: Sequence[OutputFormat]
) -> dict[str, bytes]:
    """Return the files of the artifact, in every format asked for, each loaded anew and found to answer alike.

    What was done to the structure lies beside them, however long: a report has no room for a large model's channels.
    UserError when one cannot be written, cannot be loaded, or answers otherwise.
    """
    module = candidate.module.cpu().eval()
    files = {**source.files, MODEL_FILE: candidate.graph or export_onnx(module, signature)}
    if candidate.changes:
        files[CHANGES_FILE] = canonical_json(told_of_changes(candidate.changes))
    if OutputFormat.TORCH_EXPORT in formats:
        files[TORCH_FILE] = torch_export(module, signature)
    if OutputFormat.HUGGING_FACE in formats:
        files |= hugging_face(module, source)
    for kind in formats:
        answer = _graph_answer(candidate.graph) if candidate.graph else _module_answer(module)
        check_reload(files, kind, task, signature, answer)
    return files


def torch_export(module: nn.Module, signature: Signature) -> bytes:
    """Return the module as torch.export saves it, of any batch; UserError when it cannot be exported."""
    shapes = tuple(
        {0: torch.export.Dim.AUTO, **({1: torch.export.Dim.AUTO} if one.any_length else {})} for one in signature
    )
    buffer = io.BytesIO()
    # What stops the exporter on a module it does not know is of any type.
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, example_of(signature), dynamic_shapes=shapes)
            # They would be stored beside the weights, and nobody needs them.
            program.example_inputs = None
            for node in program.graph.nodes:
                # It tells where the code lay: a model's own code lies elsewhere in each process.
                node.meta.pop("stack_trace", None)
            torch.export.save(program, buffer)
    except Exception as error:
        raise UserError(
            f"spec.output.formats: torch.export cannot take this model: {error}", reason="NotExportable"
        ) from error
    return buffer.getvalue()


def hugging_face(module: nn.Module, source: SourceModel) -> dict[str, bytes]:
    """Return the directory that the model came as, with its weights as they are now, in single precision."""
    weights = {name.removeprefix(PREFIX): value.contiguous().clone() for name, value in module.state_dict().items()}
    config = json.loads(source.directory[CONFIG_FILE])
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    written = {
        **source.directory,
        CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True).encode(),
        WEIGHTS_FILE: save_safetensors(weights, metadata={"format": "pt"}),
    }
    return {f"{DIRECTORY}/{name}": content for name, content in written.items()}


def _module_answer(module: nn.Module) -> Any:
    def answer(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.no_grad():
            output: NDArray[Any] = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        return output

    return answer


def _graph_answer(graph: bytes) -> Any:
    session = open_session(graph, threads=1)
    return lambda inputs: session.run(None, dict(inputs))[0]
