"""Directories as Hugging Face writes them, as verified bytes: config.json, safetensors, and what lies beside them."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import torch

from plimsoll_api.artifact import SENTENCE_FILE, TEXT_FILES
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store
from plimsoll_job.load.weights import NEVER_LOADED, WEIGHTS_FIELD, WEIGHTS_FILE, StoredWeights, check_numbers

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
MODULES_FILE = "modules.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
#: Read where they are there.
OPTIONAL_FILES = (*TEXT_FILES, "tokenizer_config.json", "special_tokens_map.json", PREPROCESSOR_FILE, MODULES_FILE)
#: What early releases of sentence-transformers called SENTENCE_FILE.
OLD_SENTENCE_FILES = tuple(
    f"sentence_{kind}_config.json" for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Directory:
    """What the directory holds: its settings, its weights, read when asked for, small files and code, all by name."""

    config: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    files: Mapping[str, bytes]
    digest: str
    code: Mapping[str, bytes] = field(default_factory=dict)

    def json(self, name: str) -> Any:
        """Return the JSON of a file, None when it is not there."""
        return parse_json(self.files[name], name) if name in self.files else None


def read_directory(uri: str, store: Store, *, allow_code: bool = False) -> Directory:
    """Read and verify the directory; UserError for what is missing, pickled, or brings code that is not allowed."""
    path = store.locate(uri, WEIGHTS_FIELD)
    if not path.is_dir():
        raise UserError(f"{WEIGHTS_FIELD}: expected a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, got {uri}")
    present = {found.name for found in path.iterdir()}
    if CONFIG_FILE not in present:
        raise UserError(f"{WEIGHTS_FIELD}: {uri} holds no {CONFIG_FILE}", reason="NotFound")

    def read(name: str) -> bytes:
        return store.read(f"{uri}/{name}", WEIGHTS_FIELD)

    files = {name: read(name) for name in (CONFIG_FILE, *OPTIONAL_FILES) if name in present}
    if SENTENCE_FILE not in present and (old := next((name for name in OLD_SENTENCE_FILES if name in present), None)):
        files[SENTENCE_FILE] = read(old)
    for folder in _module_folders(files):
        if (path / folder / CONFIG_FILE).is_file():
            files[f"{folder}/{CONFIG_FILE}"] = read(f"{folder}/{CONFIG_FILE}")
    config = parse_json(files[CONFIG_FILE], CONFIG_FILE)
    if not isinstance(config, dict):
        raise UserError(f"{WEIGHTS_FIELD}: {CONFIG_FILE} holds no map of settings")
    if "auto_map" in config and not allow_code:
        raise UserError(
            f"{WEIGHTS_FIELD}: {CONFIG_FILE} names code that comes with the model (auto_map), which is not run unless "
            "spec.allowCodeExecution is true; or put its class into a job image and name it in "
            "spec.model.architecture.factory",
            reason="CodeRefused",
        )
    code = {name: read(name) for name in sorted(present) if name.endswith(".py")} if "auto_map" in config else {}
    stored: list[Any] = []
    digests = {name: digest_of(content) for name, content in (files | code).items()}
    for name in _weight_files(present, read, uri):
        digests[name] = store.digest(f"{uri}/{name}", WEIGHTS_FIELD)
        stored.append(StoredWeights(path / name, f"{uri}/{name}"))
        check_numbers(stored[-1], f"{uri}/{name}")
    return Directory(config, ChainMap(*reversed(stored)), files, digest_of(canonical_json(digests)), code)


def parse_json(content: bytes, name: str) -> Any:
    """Return the value; UserError when the file is not JSON."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise UserError(f"{WEIGHTS_FIELD}: {name} is not JSON: {error}") from error


def _module_folders(files: Mapping[str, bytes]) -> list[str]:
    """Return the folders that modules.json of sentence-transformers names, below the directory."""
    listed = parse_json(files[MODULES_FILE], MODULES_FILE) if MODULES_FILE in files else []
    folders = [str(one.get("path", "")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [folder for folder in folders if folder and _is_plain(folder)]


def _weight_files(present: set[str], read: Any, uri: str) -> list[str]:
    """Return the names of the files that hold the weights."""
    if WEIGHTS_FILE in present:
        return [WEIGHTS_FILE]
    if INDEX_FILE in present:
        index = parse_json(read(INDEX_FILE), INDEX_FILE)
        places = index.get("weight_map") if isinstance(index, dict) else None
        names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if not names or not all(_is_plain(name) and name.endswith(".safetensors") for name in names):
            raise UserError(f"{WEIGHTS_FIELD}: {INDEX_FILE} names no safetensors files beside it")
        return names
    if pickled := sorted(name for name in present if name.endswith(PICKLED)):
        raise UserError(
            f"{WEIGHTS_FIELD}: {uri} holds its weights as {pickled[0]}, {NEVER_LOADED}, load it with "
            "transformers' from_pretrained and write it again with save_pretrained, which writes model.safetensors",
            reason="PickleRefused",
        )
    raise UserError(f"{WEIGHTS_FIELD}: {uri} holds no {WEIGHTS_FILE}", reason="NotFound")


def _is_plain(name: str) -> bool:
    return len(PurePosixPath(name).parts) == 1 and name not in (".", "..")
