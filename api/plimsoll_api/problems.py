"""What is wrong with a document, place by place: the rules that it breaks, though other parts of it are no good."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from plimsoll_api.model import Model
from plimsoll_api.rules import STRUCTURE_ONLY, to_camel

Path = tuple[str | int, ...]
Read = TypeVar("Read", bound=Model)


class Problem(NamedTuple):
    """One thing that is wrong: where, as in spec.steps[0].prune.amount, and what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def read_strictly(model: type[Read], text: str, context: Any = None) -> Read:
    """Return the model that a JSON text holds, read as the API server reads: no "20" for 20, no Python names."""
    return model.model_validate_json(text, strict=True, by_alias=True, by_name=False, context=context)


def path_text(path: Path) -> str:
    """Return spec.steps[0].prune for ("spec", "steps", 0, "prune")."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _broken_rules(model: Model, path: Path) -> Iterator[Problem]:
    """Yield the broken rules of a model and of all below it."""
    for field, sentence in model.broken_rules():
        yield Problem(".".join(part for part in (path_text(path), field) if part), sentence)
    for name in type(model).model_fields:
        yield from _broken_below(getattr(model, name), (*path, to_camel(name)))


def _broken_below(value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, Model):
        yield from _broken_rules(value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _broken_below(item, (*path, index))


def broken_rules_of_sound_parts(model: type[Model], value: Any, path: Path) -> Iterator[Problem]:
    """Yield the broken rules of the largest parts of a document that are well-formed, though the whole is not."""
    try:
        sound = read_strictly(model, json.dumps(value), STRUCTURE_ONLY)
    except ValidationError:
        if isinstance(value, dict):
            for name, field in model.model_fields.items():
                part, below = value.get(to_camel(name)), model_in(field.annotation)
                if below is not None:
                    for index, item in enumerate(part) if isinstance(part, list) else [(None, part)]:
                        place: Path = (*path, to_camel(name)) if index is None else (*path, to_camel(name), index)
                        yield from broken_rules_of_sound_parts(below, item, place)
    else:
        yield from _broken_rules(sound, path)


def model_in(annotation: Any) -> type[Model] | None:
    """Return the model that an annotation holds: itself, optional, or the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    if get_origin(annotation) in (list, Annotated, Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := model_in(part))), None)
    return None


def model_at(model: type[Model], path: Path) -> type[Model] | None:
    """Return the model that a path leads to."""
    current: type[Model] | None = model
    for part in path:
        if isinstance(part, int) or current is None:
            continue
        fields = {to_camel(name): field.annotation for name, field in current.model_fields.items()}
        current = model_in(fields.get(part))
    return current
