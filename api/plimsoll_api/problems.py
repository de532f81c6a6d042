"""What is wrong with a document, place by place: the rules that it breaks, though other parts of it are no good."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from plimsoll_api.model import Model
from plimsoll_api.rules import STRUCTURE_ONLY, to_camel

Path = tuple[str | int, ...]
Read = TypeVar("Read", bound=Model)
_MISSING = object()


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


def broken_rules_of_sound_parts(model: type[Model], value: Any) -> Iterator[Problem]:
    """Yield the broken rules of a document, though not all of it is well-formed: those that ask only about what is."""
    if isinstance(value, dict):
        yield from _broken_below(_sound_part(model, value), ())


def _broken_below(value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, Model):
        for field, sentence in value.broken_rules(partly=True):
            yield Problem(".".join(part for part in (path_text(path), field) if part), sentence)
        for name in type(value).model_fields:
            yield from _broken_below(getattr(value, name, None), (*path, to_camel(name)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _broken_below(item, (*path, index))


def _sound_part(model: type[Model], value: dict[str, Any]) -> Model:
    """Return the model of what is well-formed of a document; it lacks the other fields: to ask for one fails."""
    with suppress(ValidationError):
        return read_strictly(model, json.dumps(value), STRUCTURE_ONLY)
    part = model.model_construct()
    for name, field in model.model_fields.items():
        given = value.get(to_camel(name), _MISSING)
        try:
            found = field.get_default() if given is _MISSING else _sound_value(field, given)
        except ValidationError:
            found = PydanticUndefined
        if found is PydanticUndefined:
            part.__dict__.pop(name, None)
        else:
            part.__dict__[name] = found
    return part


def _sound_value(field: FieldInfo, value: Any) -> Any:
    """Return the value of a field, or what is sound of the models in it; ValidationError when nothing is."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.validate_json(
            json.dumps(value), strict=True, by_alias=True, by_name=False, context=STRUCTURE_ONLY
        )
    except ValidationError:
        below = model_in(field.annotation)
        if below is not None and isinstance(value, dict) and not _is_list(field.annotation):
            return _sound_part(below, value)
        if below is not None and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return [_sound_part(below, item) for item in value]
        raise


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return any(map(_is_list, get_args(annotation)))
    return get_origin(annotation) is list


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
