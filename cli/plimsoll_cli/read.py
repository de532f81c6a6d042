"""Manifest files: YAML documents with the line of every field, read into the contract's objects."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plimsoll_api import API_VERSION
from plimsoll_api.manifest import ManifestError, parse
from plimsoll_api.resources import Resource


@dataclass(frozen=True)
class FileProblem:
    """One thing that is wrong in a file."""

    file: Path
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: "
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


def read_file(file: Path) -> tuple[list[Resource], list[FileProblem]]:
    """Return Plimsoll's objects of the file and all that is wrong with them; other kinds are passed over."""
    objects: list[Resource] = []
    problems: list[FileProblem] = []
    try:
        nodes = [node for node in yaml.compose_all(file.read_text(), Loader=_StrictLoader) if node is not None]
        documents = [_construct(node) for node in nodes]
    except (OSError, UnicodeDecodeError) as error:
        return [], [FileProblem(file, 1, "", f"cannot be read: {error}")]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        return [], [FileProblem(file, line, "", f"is no YAML: {getattr(error, 'problem', None) or error}")]
    for node, document in zip(nodes, documents, strict=True):
        if not _is_ours(document):
            continue
        try:
            objects.append(parse(document))
        except ManifestError as error:
            problems += [
                FileProblem(file, _line_of(node, problem.path), problem.path, problem.message)
                for problem in error.problems
            ]
    return objects, sorted(problems, key=lambda problem: problem.line)


def print_problems(problems: Iterable[FileProblem]) -> None:
    """Print each problem on a line of its own."""
    for problem in problems:
        print(problem, file=sys.stderr)


def _construct(node: yaml.Node) -> object:
    loader = _StrictLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _is_ours(document: object) -> bool:
    """A document without a group is taken as ours, so that what is missing there is said."""
    if not isinstance(document, dict):
        return True
    group = str(document.get("apiVersion", "")).partition("/")[0]
    return group in ("", API_VERSION.partition("/")[0])


def _line_of(node: yaml.Node, path: str) -> int:
    """Return the line of the field, or of the nearest one above it that is there."""
    line = node.start_mark.line + 1
    for key in _keys(path):
        child = _child(node, key)
        if child is None:
            break
        line, node = child
    return line


def _keys(path: str) -> Iterator[str]:
    for part in path.replace("[", ".").replace("]", "").split("."):
        if part:
            yield part


def _child(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        item = node.value[int(key)]
        return item.start_mark.line + 1, item
    return None


class _StrictLoader(yaml.SafeLoader):
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
