"""The table of good and bad manifests, for the models (here) and for the API server (tests/integration)."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class Case:
    """One manifest, and for a bad one the field and the words of its refusal."""

    name: str
    manifest: dict[str, Any]
    field: str = ""
    says: str = ""
    server_says: str = ""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def good_cases() -> list[Case]:
    return [Case(case["name"], _manifest(case)) for case in _load("good")]


def bad_cases() -> list[Case]:
    return [
        Case(case["name"], _manifest(case), case["field"], case["says"], case.get("server", case["says"]))
        for case in _load("bad")
    ]


def base(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = copy.deepcopy(_load("bases")[name])
    return manifest


@cache
def _load(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def _manifest(case: dict[str, Any]) -> dict[str, Any]:
    manifest = base(case["base"])
    for path, value in case.get("set", {}).items():
        assign(manifest, path, copy.deepcopy(value))
    for path, length in case.get("long", {}).items():
        assign(manifest, path, "pvc://claim/".ljust(length, "x"))
    for path in case.get("remove", []):
        *parents, last = _parts(path)
        del _at(manifest, parents)[last]
    return manifest


def assign(manifest: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path such as spec.steps[0].prune; an index at the end of a list appends."""
    *parents, last = _parts(path)
    place = _at(manifest, parents)
    if isinstance(last, int) and last == len(place):
        place.append(value)
    else:
        place[last] = value


def _parts(path: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]


def _at(manifest: Any, parts: list[str | int]) -> Any:
    for part in parts:
        manifest = manifest[part]
    return manifest
