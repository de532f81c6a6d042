"""Manifests as people write them: read strictly, as the API server does, with all that is wrong said at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from plimsoll_api import API_VERSION
from plimsoll_api.model import RULES, Model
from plimsoll_api.problems import Path, Problem, broken_rules_of_sound_parts, model_in, path_text, read_strictly
from plimsoll_api.resources import KINDS, CompressionJob, ModelRelease, ModelRevision
from plimsoll_api.rules import to_camel
from plimsoll_api.wording import did_you_mean, problem_of


class ManifestError(ValueError):
    """A manifest that the API server would refuse; `problems` has all that is wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def parse(document: Any) -> CompressionJob | ModelRelease | ModelRevision:
    """Return the object of one document, or raise ManifestError with all problems. A status in it is ignored."""
    kind = _kind_of(document)
    given = as_kubectl_sends({key: value for key, value in document.items() if key != "status"})
    content = _with_defaults_for_nulls(kind, given)
    try:
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ManifestError([Problem("", f"only JSON's types can be sent to the API server: {error}")]) from error
    problems = [
        *_nulls(content.get("spec", {}), ("spec",)),
        *(problem_of(kind, details) for details in _errors(kind, text)),
        *broken_rules_of_sound_parts(kind, content),
    ]
    if problems:
        raise ManifestError(sorted(set(problems)))
    return read_strictly(kind, text)


def _errors(kind: type[Model], text: str) -> list[Any]:
    """Return pydantic's errors but those of rules, which say no field and are collected elsewhere."""
    try:
        read_strictly(kind, text)
    except ValidationError as error:
        return [details for details in error.errors() if details["type"] != RULES]
    return []


def _kind_of(document: Any) -> type[CompressionJob] | type[ModelRelease] | type[ModelRevision]:
    if not isinstance(document, dict):
        raise ManifestError(
            [Problem("", f"expected an object with apiVersion, kind, metadata and spec, got {document!r}")]
        )
    problems = []
    if document.get("apiVersion") != API_VERSION:
        problems.append(Problem("apiVersion", f"must be {API_VERSION}, got {document.get('apiVersion')!r}"))
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        problems.append(Problem("kind", f"must be one of {', '.join(KINDS)}, got {kind!r}{hint}"))
    if problems:
        raise ManifestError(problems)
    return KINDS[str(kind)]


def as_kubectl_sends(value: Any) -> Any:
    """Return the value with whole floats as integers: kubectl sends 1 where a file says 1.0."""
    if isinstance(value, dict):
        return {str(key): as_kubectl_sends(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_defaults_for_nulls(model: type[Model], value: Any) -> Any:
    """Return the value without the nulls of fields that have a default: the API server drops these, and only these."""
    if isinstance(value, list):
        return [_with_defaults_for_nulls(model, item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {to_camel(name): field for name, field in model.model_fields.items()}
    below = {name: model_in(field.annotation) for name, field in fields.items()}
    return {
        name: _with_defaults_for_nulls(found, item) if (found := below.get(name)) else item
        for name, item in value.items()
        if not (item is None and name in fields and fields[name].get_default() is not None)
    }


def _nulls(value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _nulls(item, (*path, key))
    elif value is None:
        yield Problem(path_text(path), "must not be null: leave it out")
