"""The model as given: its module with its weights, and what tells it from any other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from plimsoll_api.artifact import TEXT_FILES, TOKENIZER_FILE
from plimsoll_api.spec import Architecture, ModelSource, Task
from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.factory import build_factory
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.architectures.named import build_timm, build_torchvision
from plimsoll_job.load.architectures.onnx import build_graph
from plimsoll_job.load.directory import PREPROCESSOR_FILE, read_directory
from plimsoll_job.load.onnx_file import read_onnx
from plimsoll_job.load.plain import check_tensors, plain
from plimsoll_job.load.store import Store, is_empty_folder
from plimsoll_job.load.text import read_text_files
from plimsoll_job.load.weights import WEIGHTS_FIELD, WEIGHTS_FILE, StoredWeights, check_numbers, load_strictly

#: What whoever serves a model of a directory needs besides its graph; sentence-transformers has vectors only.
SERVED_FILES = (TOKENIZER_FILE, PREPROCESSOR_FILE)
SERVED_WITH_VECTORS = (*TEXT_FILES, PREPROCESSOR_FILE)


@dataclass
class SourceModel:
    """The model as given: `read` makes its module, at once, and again when it is asked for after it was let go."""

    read: Callable[[], nn.Module]
    architecture: str
    digest: str
    #: What an artifact needs beside the model, by its name there.
    files: Mapping[str, bytes] = field(default_factory=dict)
    #: The small files of a Hugging Face directory, by name.
    directory: Mapping[str, bytes] = field(default_factory=dict)
    #: What the model itself calls its outputs, where it does so beside a directory's config.json.
    classes: tuple[str, ...] = ()
    #: Whether code that came with the weights built the module.
    has_code: bool = False
    _module: nn.Module | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._module = plain(self.read())

    @property
    def module(self) -> nn.Module:
        """The module with the given weights, in evaluation mode; it is to stay as it is."""
        if self._module is None:
            self._module = plain(self.read())
        return self._module

    def take(self) -> nn.Module:
        """Return the module, to be changed or let go: whoever asks next has it read anew."""
        module, self._module = self.module, None
        return module

    def layers(self) -> Collection[str]:
        """Return the names that parts of the model go by: those of its modules, or of the nodes of its graph."""
        if isinstance(self.module, GraphModule):
            return self.module.layers()
        return [name for name, _ in self.module.named_modules() if name]


def load_model(source: ModelSource, store: Store, task: str = "", *, allow_code: bool = False) -> SourceModel:
    """Read and verify the weights, and load them into the module of the architecture.

    A Hugging Face directory may hold models of several tasks; the other architectures are of one. Code that comes with
    it runs only where that is allowed.
    """
    with boundary(WEIGHTS_FIELD, "the model cannot be loaded", reason="NotLoadable"):
        return _load(source, store, task, allow_code)


def _load(source: ModelSource, store: Store, task: str, allow_code: bool) -> SourceModel:
    if source.architecture.huggingface is not None:
        return _load_huggingface(source, store, task, allow_code)
    if source.architecture.onnx is not None:
        return _load_onnx(source, store)
    uri, files = source.uri, dict[str, bytes]()
    directory = store.locate(uri, WEIGHTS_FIELD)
    if directory.is_dir() and not is_empty_folder(directory):
        uri = f"{uri}/{WEIGHTS_FILE}"
        files = read_text_files(source.uri, store, WEIGHTS_FIELD)
    digest = store.digest(uri, WEIGHTS_FIELD)
    check_digest(source, digest, uri)
    weights = StoredWeights(store.locate(uri, WEIGHTS_FIELD), uri)
    check_numbers(weights, uri)
    read = partial(_read_module, source.architecture, weights)
    return SourceModel(read, describe(source.architecture), digest, files)


def _read_module(architecture: Architecture, weights: StoredWeights) -> nn.Module:
    module, unread = build_module(architecture)
    check_tensors(module)
    load_strictly(module, weights, WEIGHTS_FIELD, unread)
    return module


def _load_onnx(source: ModelSource, store: Store) -> SourceModel:
    read = read_onnx(source.uri, store)
    check_digest(source, read.digest, source.uri)
    graph = build_graph(read.model, source.architecture.onnx.output if source.architecture.onnx else None)
    return SourceModel(graph.unopened, describe(source.architecture), read.digest, read.files, classes=graph.classes)


def _load_huggingface(source: ModelSource, store: Store, task: str, allow_code: bool) -> SourceModel:
    directory = read_directory(source.uri, store, allow_code=allow_code)
    check_digest(source, directory.digest, source.uri)
    # transformers takes seconds to import, and other architectures do without.
    from plimsoll_job.load.architectures import huggingface  # noqa: PLC0415

    served = SERVED_WITH_VECTORS if task == Task.EMBEDDING else SERVED_FILES
    files = {name: content for name, content in directory.files.items() if name in served}
    return SourceModel(
        partial(huggingface.build_huggingface, directory, task),
        huggingface.describe_huggingface(directory),
        directory.digest,
        files,
        directory.files,
        has_code=bool(directory.code),
    )


def check_digest(source: ModelSource, digest: str, uri: str) -> None:
    """UserError when the spec expects another digest."""
    if source.digest is not None and source.digest != digest:
        raise UserError(f"spec.model.digest: {uri} has the digest {digest}", reason="DigestMismatch")


def build_module(architecture: Architecture) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module without its weights, and prefixes of weights that it has no use for."""
    if architecture.torchvision is not None:
        return build_torchvision(architecture.torchvision)
    if architecture.timm is not None:
        return build_timm(architecture.timm), ()
    return build_factory(architecture.factory or ""), ()


def describe(architecture: Architecture) -> str:
    """Return the architecture in words, such as torchvision resnet18; a factory as it is written."""
    if architecture.onnx is not None:
        return "onnx"
    if architecture.torchvision is not None:
        return f"torchvision {architecture.torchvision.name}"
    if architecture.timm is not None:
        return f"timm {architecture.timm.name}"
    return architecture.factory or ""
