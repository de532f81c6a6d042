"""Code that comes with a Hugging Face directory: its verified bytes, imported only where the spec allows it."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from plimsoll_job.errors import UserError
from plimsoll_job.load.directory import Directory

FIELD = "spec.model.uri"
REFERENCE = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)", re.ASCII)
#: The files of code that was imported, for as long as this process may look into them.
_kept: list[tempfile.TemporaryDirectory[str]] = []


def own_class(directory: Directory, auto: str) -> Any:
    """Return the class that auto_map of config.json names for one of transformers' Auto classes, None where none is.

    Only files of the directory are imported, as one package, never a repository elsewhere. UserError when the class is
    not there or its module fails.
    """
    named = directory.config.get("auto_map", {})
    reference = named.get(auto) if isinstance(named, dict) else None
    if reference is None:
        return None
    found = REFERENCE.fullmatch(str(reference))
    if found is None or f"{found[1]}.py" not in directory.code:
        raise UserError(
            f"{FIELD}: auto_map names {reference!r} for {auto}; expected module.Class of a .py file of the directory: "
            "code is never fetched from elsewhere"
        )
    # What the code raises cannot be known, and it may end the process; whatever it is, the directory must change.
    try:
        return getattr(importlib.import_module(f"{_package(directory)}.{found[1]}"), found[2])
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{FIELD}: the code of the directory fails: {reference}: {error}", reason="CodeFails"
        ) from error


def _package(directory: Directory) -> str:
    """Return the name of the package that the code is, written out where it is not yet."""
    name = f"given_{directory.digest.removeprefix('sha256:')[:16]}"
    if name not in sys.modules:
        kept = tempfile.TemporaryDirectory(prefix="plimsoll-code-")
        _kept.append(kept)
        package = Path(kept.name, name)
        package.mkdir()
        (package / "__init__.py").touch()
        for file, content in directory.code.items():
            (package / file).write_bytes(content)
        sys.path.append(kept.name)
        importlib.invalidate_caches()
        importlib.import_module(name)
    return name
