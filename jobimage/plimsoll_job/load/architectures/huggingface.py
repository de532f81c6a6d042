"""Models of Hugging Face directories, offline: by transformers' classes, or by their own where that is allowed."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Read when transformers is imported: nothing is ever asked of a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from torch import nn

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.code import own_class
from plimsoll_job.load.architectures.wrapped import ImageLogits, Pooling, TextEmbedding, TextLogits
from plimsoll_job.load.directory import CONFIG_FILE, MODULES_FILE, Directory
from plimsoll_job.load.text import TOKEN_TYPE_IDS
from plimsoll_job.load.weights import WEIGHTS_FIELD, told_of_tensors

transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

FIELD = "spec.model.architecture.huggingface"
#: The fused kernels hide the products that a trace and the graph of channels must see, and a kernel that config.json
#: names may be code of another repository.
ATTENTION = "eager"
#: What sentence-transformers names its modules, in the order that is known.
TRANSFORMER, POOLING, NORMALIZE = "Transformer", "Pooling", "Normalize"
CHAINS = ([TRANSFORMER, POOLING], [TRANSFORMER, POOLING, NORMALIZE])
PACKAGE = "sentence_transformers."
POOLINGS = {"pooling_mode_mean_tokens": Pooling.MEAN, "pooling_mode_cls_token": Pooling.FIRST}


@dataclass(frozen=True)
class Head:
    """What a task takes of a model: transformers' class, and how the class's name ends."""

    auto: Any
    ending: str


HEADS: Mapping[str, Head] = {
    "ImageClassification": Head(transformers.AutoModelForImageClassification, "ForImageClassification"),
    "TextClassification": Head(transformers.AutoModelForSequenceClassification, "ForSequenceClassification"),
    "TokenClassification": Head(transformers.AutoModelForTokenClassification, "ForTokenClassification"),
    "Regression": Head(transformers.AutoModelForSequenceClassification, "ForSequenceClassification"),
    "Embedding": Head(transformers.AutoModel, ""),
}


def build_huggingface(directory: Directory, task: str) -> nn.Module:
    """Return the module for the task, with its weights, its parameters named `model.` and transformers' name.

    UserError when the directory is not of the task, of no known architecture, or its weights do not fit.
    """
    head = HEADS.get(task)
    if head is None:
        raise UserError(f"spec.task: {task} is no task of a Hugging Face directory; expected {', '.join(HEADS)}")
    named = _architecture(directory.config)
    if not named.endswith(head.ending):
        raise UserError(f"spec.task: {task} takes a model {head.ending}, config.json says {named or 'nothing'}")
    config = _config(directory)
    model = _load(head, config, directory, strict=bool(head.ending))
    if task == "ImageClassification":
        return ImageLogits(model).eval()
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is None:
        raise UserError(f"{FIELD}: {config.model_type} takes no text, and {task} is of text")
    typed = getattr(config, "type_vocab_size", 1) > 1 and TOKEN_TYPE_IDS in inspect.signature(model.forward).parameters
    if task != "Embedding":
        return TextLogits(model, vocabulary, typed=typed).eval()
    pooling, normalize = pooling_of(directory)
    if hasattr(model, "pooler"):
        # The vectors are pooled from the tokens: what the model's own pooler makes is read by nobody.
        model.pooler = None
    return TextEmbedding(model, vocabulary, pooling, typed=typed, normalize=normalize).eval()


def describe_huggingface(directory: Directory) -> str:
    """Return the architecture in words."""
    return f"huggingface {_architecture(directory.config) or directory.config.get('model_type')}"


def pooling_of(directory: Directory) -> tuple[Pooling, bool]:
    """Return how vectors are pooled and whether they are normalised, as modules.json says.

    By mean and not when there is no such file. UserError for another chain than the model, Pooling and perhaps
    Normalize.
    """
    modules = directory.json(MODULES_FILE)
    if modules is None:
        return Pooling.MEAN, False
    if not isinstance(modules, list) or not all(isinstance(one, dict) for one in modules):
        raise UserError(f"{FIELD}: {MODULES_FILE} is no list of modules")
    chain = [_kind(module) for module in modules]
    if chain not in CHAINS:
        raise UserError(
            f"{FIELD}: {MODULES_FILE} has the modules {', '.join(chain) or 'none'}; expected {TRANSFORMER}, {POOLING} "
            f"and perhaps {NORMALIZE}; for any other, put a class into a job image and name it in "
            "spec.model.architecture.factory"
        )
    if place := modules[0].get("path"):
        raise UserError(
            f"{FIELD}: {MODULES_FILE} has the model in {place!r}; expected its config.json and its weights beside "
            f"{MODULES_FILE}, with the path ''"
        )
    return _pooling(directory, f"{modules[1].get('path')}/{CONFIG_FILE}"), NORMALIZE in chain


def _kind(module: Mapping[str, Any]) -> str:
    """Return the name of the class; with its package where that is another: what has the same name may do anything."""
    kind = str(module.get("type"))
    return kind.rpartition(".")[2] if kind.startswith(PACKAGE) else kind


def _pooling(directory: Directory, file: str) -> Pooling:
    """Return how the settings of the file say that vectors are pooled; UserError when that is not known."""
    settings = directory.json(file)
    if not isinstance(settings, dict):
        raise UserError(f"{FIELD}: {file}, which {MODULES_FILE} names, is missing or no map of settings")
    modes = sorted(name for name, value in settings.items() if name.startswith("pooling_mode") and value)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(
            f"{FIELD}: {file} pools by {', '.join(modes) or 'nothing'}; expected one of {', '.join(POOLINGS)}"
        )
    return POOLINGS[modes[0]]


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _config(directory: Directory) -> Any:
    """Return transformers' configuration; UserError when the architecture is not known or the settings are wrong."""
    settings = directory.config
    if "quantization_config" in settings:
        raise UserError(f"{FIELD}: the weights are quantized already; give the model as it was before")
    kind = str(settings.get("model_type"))
    known = transformers.CONFIG_MAPPING
    own = own_class(directory, "AutoConfig")
    if own is None and kind not in known:
        near = difflib.get_close_matches(kind, list(known), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{FIELD}: model_type {kind!r} of config.json is not known to transformers{hint}")
    # What wrong settings raise is of any type.
    try:
        return (own or known[kind]).from_dict(dict(settings))
    except Exception as error:
        raise UserError(f"{FIELD}: config.json cannot be used: {error}") from error


def _load(head: Head, config: Any, directory: Directory, *, strict: bool) -> Any:
    """Return transformers' model with the weights, which it renames from older releases' names by itself."""
    kind = own_class(directory, head.auto.__name__)
    if kind is None and config.model_type not in transformers.CONFIG_MAPPING:
        raise UserError(f"{FIELD}: auto_map of config.json names no {head.auto.__name__}, which the task takes")
    given = dict(directory.weights)
    try:
        if kind is None:
            with torch.device("meta"):
                kind = type(head.auto.from_config(config, trust_remote_code=False, attn_implementation=ATTENTION))
        model, loading = kind.from_pretrained(
            None,
            config=config,
            state_dict=given,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            local_files_only=True,
            # Told below, by their names; transformers itself says no more than that there are some.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        check_passing(error)
        raise UserError(f"{FIELD}: transformers cannot build {_architecture(directory.config)}: {error}") from error
    missing = sorted(name for name in loading["missing_keys"] if strict or not name.startswith("pooler."))
    found = model.state_dict()
    problems = {
        "missing": missing,
        "unexpected": sorted(loading["unexpected_keys"]) if strict else [],
        "of the wrong shape": [
            f"{name} is {list(stored)} instead of {list(wanted)}"
            for name, stored, wanted in sorted(loading["mismatched_keys"])
        ],
        "of the wrong type": sorted(
            f"{name} is {tensor.dtype} instead of {wanted.dtype}"
            for name, tensor in given.items()
            if not tensor.is_floating_point()
            and (wanted := found.get(name, found.get(f"{model.base_model_prefix}.{name}"))) is not None
            and wanted.is_floating_point()
        ),
    }
    if any(problems.values()):
        raise UserError(f"{WEIGHTS_FIELD}: the weights do not fit {type(model).__name__}; {told_of_tensors(problems)}")
    return model
