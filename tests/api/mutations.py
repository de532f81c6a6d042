"""Manifests damaged at random places with values that people and programs write by mistake."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tests.api.manifest_cases import base

VALUES: list[Any] = [
    0, 1, -1, 2, 4, 32, 63, 1_000_000, 2**31, 0.5, 1.0, True, False, "", " ", "0", "1", "1.0", "0.5", "50%", "100%",
    "0%", "05%", "5 %", "1e-3", "-1", "2", "100", "99.99999999999%", "0.0000000000001", "1Gi", "500m", "50ms", "0s",
    "1h", "pvc://a/b", "pvc://A/b", "pvc://a/./b", "pvc://data/digits-train.npz", "pvc://data/digits-test.npz",
    "x", "X",
    "x:y", "a.b:c", "sha256:" + "0" * 64, "accuracy", "macroF1", "size", "latencyP95", "throughput", "Magnitude",
    "Regression", "Embedding", "TokenClassification", "rmse",
    "Activation", "Redundancy", "Taylor", "Structured", "Unstructured", "NofM", "2:4", "4:2", "Wanda", "Layer", "Macs",
    "Exists", [], {}, [1], [1, 2], ["a", "a"], {"a": "b"}, "ü", "a\n", "٣%",
]  # fmt: skip


def mutated(chance: random.Random) -> tuple[dict[str, Any], str]:
    """Return a manifest of the table's bases with one to three changes, and the changes in words."""
    manifest = base(chance.choice(["job", "job", "job", "minimal", "release", "revision"]))
    changes = []
    for _ in range(chance.randint(1, 3)):
        places = list(_places(manifest["spec"], "spec"))
        if not places:
            break
        holder, key, path = chance.choice(places)
        change = chance.choice(["set", "set", "set", "remove", "copy"])
        if change == "remove":
            del holder[key]
        elif change == "copy":
            source, name, _ = chance.choice(places)
            if name in source if isinstance(source, dict) else name < len(source):
                holder[key] = _copied(source[name])
        else:
            holder[key] = chance.choice(VALUES)
        changes.append(f"{change} {path} → {holder.get(key) if isinstance(holder, dict) else holder!r}")
    return manifest, "; ".join(changes)


def _places(value: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        below = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
        yield value, key, below
        if isinstance(value[key], dict | list):
            yield from _places(value[key], below)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
