"""Manifests as people write them: read strictly, as the API server does, with all that is wrong said at once."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from plimsoll_api import API_VERSION
from plimsoll_api.model import STRUCTURE_ONLY, Model
from plimsoll_api.resources import KINDS, CompressionJob, ModelRelease, ModelRevision
from plimsoll_api.rules import to_camel

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong: where, as in spec.steps[0].prune.amount, and what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ManifestError(ValueError):
    """A manifest that the API server would refuse; `problems` has all that is wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def parse_yaml(text: str) -> list[CompressionJob | ModelRelease | ModelRevision]:
    """Return the objects of a YAML text of one or several documents, or raise ManifestError with all problems."""
    try:
        documents = [document for document in yaml.load_all(text, StrictLoader) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError([Problem("", f"no YAML: {error}")]) from error
    if not documents:
        raise ManifestError([Problem("", "the file holds no object")])
    resources, problems = [], []
    for number, document in enumerate(documents, 1):
        try:
            resources.append(parse(document))
        except ManifestError as error:
            place = f"document {number}: " if len(documents) > 1 else ""
            problems += [Problem(place + problem.path, problem.message) for problem in error.problems]
    if problems:
        raise ManifestError(problems)
    return resources


def parse(document: Any) -> CompressionJob | ModelRelease | ModelRevision:
    """Return the object of one document, or raise ManifestError with all problems. A status in it is ignored."""
    kind = _kind_of(document)
    given = as_kubectl_sends({key: value for key, value in document.items() if key != "status"})
    content = _with_defaults_for_nulls(kind, given)
    try:
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ManifestError([Problem("", f"only JSON's types can be sent to the API server: {error}")]) from error
    nulls = list(_nulls(content.get("spec", {}), ("spec",)))
    try:
        resource = kind.model_validate_json(text, strict=True, by_alias=True, by_name=False, context=STRUCTURE_ONLY)
    except ValidationError as error:
        problems = [_problem(kind, details) for details in error.errors()]
        broken = list(_broken_rules_of_sound_parts(kind, content, ()))
        raise ManifestError(_sorted([*nulls, *problems, *broken])) from error
    if problems := _sorted([*nulls, *_broken_rules(resource, ())]):
        raise ManifestError(problems)
    return resource


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
        hint = _did_you_mean(str(kind), KINDS)
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
    below = {name: _model_in(field.annotation) for name, field in fields.items()}
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


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(set(problems))


def path_text(path: Path) -> str:
    """Return spec.steps[0].prune for ("spec", "steps", 0, "prune")."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _broken_rules(model: Model, path: Path) -> Iterator[Problem]:
    """Yield the broken rules of a model and of all below it."""
    for field, sentence in model.broken_rules():
        yield Problem(".".join(part for part in (path_text(path), field) if part), sentence)
    for name in type(model).model_fields:
        yield from _broken_rules_below(getattr(model, name), (*path, to_camel(name)))


def _broken_rules_below(value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, Model):
        yield from _broken_rules(value, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _broken_rules_below(item, (*path, index))


def _broken_rules_of_sound_parts(model: type[Model], value: Any, path: Path) -> Iterator[Problem]:
    """Yield the broken rules of the largest parts of a document that are well-formed, though the whole is not."""
    try:
        sound = model.model_validate_json(
            json.dumps(value), strict=True, by_alias=True, by_name=False, context=STRUCTURE_ONLY
        )
    except ValidationError:
        if isinstance(value, dict):
            for name, field in model.model_fields.items():
                part, below = value.get(to_camel(name)), _model_in(field.annotation)
                if below is not None:
                    for index, item in enumerate(part) if isinstance(part, list) else [(None, part)]:
                        place: Path = (*path, to_camel(name)) if index is None else (*path, to_camel(name), index)
                        yield from _broken_rules_of_sound_parts(below, item, place)
    else:
        yield from _broken_rules(sound, path)


def _model_in(annotation: Any) -> type[Model] | None:
    """Return the model that an annotation holds: itself, optional, or the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    if get_origin(annotation) in (list, Annotated, Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
    return None


def _model_at(model: type[Model], path: Path) -> type[Model] | None:
    """Return the model that a path leads to."""
    current: type[Model] | None = model
    for part in path:
        if isinstance(part, int) or current is None:
            continue
        fields = {to_camel(name): field.annotation for name, field in current.model_fields.items()}
        current = _model_in(fields.get(part))
    return current


def _problem(kind: type[Model], details: Any) -> Problem:
    path: Path = details["loc"]
    return Problem(path_text(path), _message(kind, path, details))


def _message(kind: type[Model], path: Path, details: Any) -> str:
    error, value, limits = details["type"], details.get("input"), details.get("ctx", {})
    parent = _model_at(kind, path[:-1])
    if error == "extra_forbidden" and parent is not None:
        names = [to_camel(name) for name in parent.model_fields]
        return f"is no field{_did_you_mean(str(path[-1]), names) or '; there are ' + ', '.join(names)}"
    if error == "missing" and parent is not None:
        field = next(field for name, field in parent.model_fields.items() if to_camel(name) == path[-1])
        return f"is required: {field.description}" if field.description else "is required"
    if error in _EXPECTED:
        return f"expected {_EXPECTED[error]}, got {value!r}"
    return _SENTENCES[error](value, limits) if error in _SENTENCES else str(details["msg"])


def _not_one_of(value: Any, limits: Any) -> str:
    expected = limits["expected"].replace(" or ", ", ").replace("'", "")
    return f"must be one of {expected}, got {value!r}{_did_you_mean(str(value), expected.split(', '))}"


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


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    by_form = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.replace("_", "").replace("-", "").lower(), by_form, n=1, cutoff=0.6)
    return f"; did you mean {by_form[close[0]]}?" if close else ""


class StrictLoader(yaml.SafeLoader):
    """YAML as kubectl takes it: no key twice, no dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice: the last would silently win."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands here twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
