"""What is installed in a folder of Python packages. Stands alone: it is also run inside images, as text."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path


def take_inventory(folders: list[str]) -> dict[str, dict[str, str]]:
    """Return the version of every package in the folders, and the digest of every source file of the project."""
    packages = {
        found.metadata["Name"].lower(): found.version for found in importlib.metadata.distributions(path=folders)
    }
    files = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in folders
        for file in sorted(Path(folder).glob("plimsoll_*/**/*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    return {"packages": packages, "files": files}


if __name__ == "__main__":
    print(json.dumps(take_inventory(sys.argv[1:])))
