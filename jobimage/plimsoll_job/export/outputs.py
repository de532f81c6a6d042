"""The model in every format that the job asks for, each as files of the artifact, which are never held in memory."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_api.artifact import CHANGES_FILE, MODEL_FILE
from plimsoll_api.model import canonical_json
from plimsoll_api.sources import OutputFormat
from plimsoll_job.boundary import check_passing, words_of
from plimsoll_job.checkpoints import tensor_writer
from plimsoll_job.errors import UserError
from plimsoll_job.export.decisions import Decisions, Watch
from plimsoll_job.export.graph import signature as signature_of_graph
from plimsoll_job.export.lean import read_lean
from plimsoll_job.export.onnx_export import Exported, export_onnx
from plimsoll_job.export.reload import DIRECTORY, TORCH_FILE, check_reload, expected_answers
from plimsoll_job.load.architectures.wrapped import PREFIX
from plimsoll_job.load.directory import CONFIG_FILE
from plimsoll_job.load.examples import batches_of, example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.weights import WEIGHTS_FILE, tied
from plimsoll_job.sessions import open_restoring
from plimsoll_job.techniques.shape import Candidate, told_of_changes


def write_outputs(
    candidate: Candidate,
    source: SourceModel,
    signature: Signature,
    task: str,
    *,
    formats: Sequence[OutputFormat],
    directory: Path,
) -> tuple[str, ...]:
    """Write the artifact's files in every format asked for; return what a person should know of them.

    Each is loaded anew, and found to answer the job's own samples alike. What was done to the structure lies beside
    them, however long: a report has no room for a large model's channels. UserError when one cannot be written, cannot
    be loaded, or answers otherwise.
    """
    module, model_file = candidate.module.cpu().eval(), directory / MODEL_FILE
    for name, content in source.files.items():
        _write(directory / name, content)
    if candidate.graph is None:
        exported = export_onnx(module, signature, model_file)
    else:
        shutil.copyfile(candidate.graph.path, model_file)
        taken = _taken_by(model_file, signature)
        answers = expected_answers(_graph_answer(model_file), batches_of(taken))
        exported = Exported(taken, answers, candidate.notes)
    if candidate.changes:
        _write(directory / CHANGES_FILE, canonical_json(told_of_changes(candidate.changes)))
    if OutputFormat.TORCH_EXPORT in formats:
        torch_export(module, signature, directory / TORCH_FILE)
    if OutputFormat.HUGGING_FACE in formats:
        hugging_face(module, source, directory / DIRECTORY)
    for kind in formats:
        batches, expected = batches_of(exported.signature), exported.answers
        if kind is not OutputFormat.ONNX and exported.signature != signature:
            batches = batches_of(signature)
            expected = expected_answers(_module_answer(module), batches)
        check_reload(directory, kind, task, batches, expected)
    return exported.notes


def _taken_by(graph: Path, signature: Signature) -> Signature:
    """Return the signature with texts of any length only where the graph takes these."""
    inputs, _ = signature_of_graph(read_lean(graph).proto)
    shapes = {one.name: one.shape for one in inputs}
    return tuple(replace(one, any_length=one.any_length and shapes[one.name][1] is None) for one in signature)


def torch_export(module: nn.Module, signature: Signature, path: Path) -> None:
    """Write the module as torch.export saves it, of any batch; UserError when it cannot be exported."""
    shapes = tuple(
        {0: torch.export.Dim.AUTO, **({1: torch.export.Dim.AUTO} if one.any_length else {})} for one in signature
    )
    example, decisions = example_of(signature), Decisions()
    with torch.no_grad(), Watch(example, decisions.traced):
        module(*example)
    # What stops the exporter on a module it does not know is of any type.
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, example, dynamic_shapes=shapes)
            # They would be stored beside the weights, and nobody needs them.
            program.example_inputs = None
            for node in program.graph.nodes:
                # It tells where the code lay: a model's own code lies elsewhere in each process.
                node.meta.pop("stack_trace", None)
            torch.export.save(program, path)
    except Exception as error:
        check_passing(error)
        raise UserError(
            f"spec.output.formats: torch.export cannot take this model: {words_of(error)}{decisions.cause()}",
            reason="NotExportable",
        ) from error


def hugging_face(module: nn.Module, source: SourceModel, directory: Path) -> None:
    """Write the directory that the model came as, with its weights as they are now, in single precision.

    What layers share is written once, by its first name: transformers ties the others to it.
    """
    config = json.loads(source.directory[CONFIG_FILE])
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    for name, content in source.directory.items():
        _write(directory / name, content)
    _write(directory / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True).encode())
    state = module.state_dict()
    weights = {name.removeprefix(PREFIX): state[name] for name, *_ in tied(state)}
    tensor_writer(weights, {"format": "pt"})(directory / WEIGHTS_FILE)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _module_answer(module: nn.Module) -> Any:
    def answer(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.no_grad():
            output: NDArray[Any] = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        return output

    return answer


def _graph_answer(path: Path) -> Any:
    session = open_restoring(path)

    def answer(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        (output,) = session.run(None, dict(inputs))
        return np.asarray(output)

    return answer
