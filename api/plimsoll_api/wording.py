"""Pydantic's errors in words that say what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from plimsoll_api.model import Model
from plimsoll_api.problems import Path, Problem, model_at, path_text
from plimsoll_api.rules import to_camel


def problem_of(kind: type[Model], details: Any) -> Problem:
    """Return the problem of one error in a document of the kind."""
    path: Path = details["loc"]
    return Problem(path_text(path), _message(kind, path, details))


def _message(kind: type[Model], path: Path, details: Any) -> str:
    error, value, limits = details["type"], details.get("input"), details.get("ctx", {})
    parent = model_at(kind, path[:-1])
    if error == "extra_forbidden" and parent is not None:
        names = [to_camel(name) for name in parent.model_fields]
        return f"is no field{did_you_mean(str(path[-1]), names) or '; there are ' + ', '.join(names)}"
    if error == "missing" and parent is not None:
        field = next(field for name, field in parent.model_fields.items() if to_camel(name) == path[-1])
        return f"is required: {field.description}" if field.description else "is required"
    if error in _EXPECTED:
        return f"expected {_EXPECTED[error]}, got {value!r}"
    return _SENTENCES[error](value, limits) if error in _SENTENCES else str(details["msg"])


def _not_one_of(value: Any, limits: Any) -> str:
    expected = limits["expected"].replace(" or ", ", ").replace("'", "")
    return f"must be one of {expected}, got {value!r}{did_you_mean(str(value), expected.split(', '))}"


_SENTENCES: dict[str, Callable[[Any, Any], str]] = {
    "enum": _not_one_of,
    "literal_error": _not_one_of,
    "value_error": lambda _, limits: str(limits["error"]),
    "greater_than_equal": lambda value, limits: f"must be at least {limits['ge']}, got {value}",
    "less_than_equal": lambda value, limits: f"must be at most {limits['le']}, got {value}",
    "too_short": lambda value, limits: f"must have at least {limits['min_length']} entries, got {len(value)}",
    "too_long": lambda value, limits: f"must have at most {limits['max_length']} entries, got {len(value)}",
    "string_too_short": lambda value, limits: f"must have at least {limits['min_length']} characters, got {len(value)}",
    "string_too_long": lambda value, limits: f"must have at most {limits['max_length']} characters, got {len(value)}",
}
_EXPECTED = {
    "int_type": "a whole number, not in quotes",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "a string; write it in quotes",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map of fields",
    "model_attributes_type": "a map of fields",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" when a known word is close, else nothing."""
    by_form = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.replace("_", "").replace("-", "").lower(), by_form, n=1, cutoff=0.6)
    return f"; did you mean {by_form[close[0]]}?" if close else ""
