"""Rules: each stated once, in CEL for the API server and in Python for the model, with one message for both."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"
#: The validation context that leaves rules, patterns and ranges to the caller, who collects all that are broken.
STRUCTURE_ONLY = {"plimsoll": "structure only"}

#: Not FieldValueDuplicate: with it the API server leaves the message out.
RuleReason = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]


@dataclass(frozen=True)
class Rule:
    """One claim about several fields of a model."""

    cel: str
    holds: Callable[[Any], bool]
    message: str
    #: The field that is wrong, below the model, camelCase with dots; the model itself when empty.
    field: str = ""
    reason: RuleReason = "FieldValueInvalid"

    def to_schema(self) -> dict[str, str]:
        """Return the rule as the API server takes it."""
        schema = {"rule": self.cel, "message": self.message, "reason": self.reason}
        if self.field:
            schema["fieldPath"] = f".{self.field}"
        return schema


def exactly_one_of(*fields: str, subject: str) -> Rule:
    """Return the rule that exactly one of the optional fields (snake_case) is set."""
    names = [to_camel(field) for field in fields]
    present = ", ".join(f"has(self.{name})" for name in names)
    return Rule(
        cel=f"[{present}].filter(given, given).size() == 1",
        holds=lambda model: sum(getattr(model, field) is not None for field in fields) == 1,
        message=f"{subject} takes exactly one of {', '.join(names)}",
    )


def to_camel(name: str) -> str:
    """Return the camelCase of a snake_case name, as it stands on the wire."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True)
class Pattern:
    """The grammar of a string field, with what to write in its place when it does not match."""

    regex: str
    expected: str
    max_length: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the value after its type."""
        return _checked_after(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say the same to the API server, whose own message would be the regular expression."""
        return handler(schema) | {
            "pattern": self.anchored,
            "maxLength": self.max_length,
            VALIDATIONS: [{"rule": f"self.matches({cel_text(self.anchored)})", "message": self.message}],
        }

    @property
    def anchored(self) -> str:
        """The regular expression for a language that searches."""
        return f"^({self.regex})$"

    @property
    def message(self) -> str:
        """What would be right."""
        return f"expected {self.expected}"

    def fits(self, value: str) -> bool:
        """Tell whether the value is of this grammar."""
        return len(value) <= self.max_length and re.fullmatch(self.regex, value, re.ASCII) is not None

    def check(self, value: str) -> str:
        """Return the value when it fits, else refuse it."""
        if len(value) > self.max_length:
            raise ValueError(f"{self.message}, of at most {self.max_length} characters; got {len(value)}")
        if not self.fits(value):
            raise ValueError(f"{self.message}, got {value!r}")
        return value


def keys_fit(field: str, grammar: Pattern) -> Rule:
    """Return the rule that every key of a map field (snake_case) is of the grammar; a schema cannot say so."""
    name = to_camel(field)
    fits = f"key.size() <= {grammar.max_length} && key.matches({cel_text(grammar.anchored)})"
    return Rule(
        cel=f"self.{name}.all(key, {fits})",
        holds=lambda model: all(map(grammar.fits, getattr(model, field))),
        message=f"each key: {grammar.message}",
        field=name,
    )


@dataclass(frozen=True)
class Within:
    """The range of a Fraction or Decimal."""

    expected: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the number after its grammar."""
        return _checked_after(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say the same to the API server; a value of the wrong grammar is left to the grammar's own rule."""
        inner = handler(schema)
        sides = [
            f"({cel_number('self')}) {operator} {bound!r}"
            for operator, bound in self._sides().items()
            if bound is not None
        ]
        grammar = f"type(self) == int || self.matches({cel_text(inner['pattern'])})"
        rule = {"rule": f"!({grammar}) || ({' && '.join(sides)})", "message": self.message}
        return inner | {VALIDATIONS: [*inner.get(VALIDATIONS, []), rule]}

    @property
    def message(self) -> str:
        """What would be right."""
        return f"must be {self.expected}"

    def _sides(self) -> dict[str, float | None]:
        sides = {">": self.above, ">=": self.at_least, "<": self.below, "<=": self.at_most}
        return {operator: None if bound is None else float(bound) for operator, bound in sides.items()}

    def check(self, value: Any) -> Any:
        """Return the value when it lies in the range, else refuse it."""
        number = value.value
        inside = (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
        )
        if not inside:
            raise ValueError(f"{self.message}, got {value}")
        return value


def _checked_after(check: Callable[[Any], Any], inner: CoreSchema) -> CoreSchema:
    def after(value: Any, info: ValidationInfo) -> Any:
        return value if info.context is STRUCTURE_ONLY else check(value)

    return core_schema.with_info_after_validator_function(after, inner)


def cel_text(text: str) -> str:
    """Return a CEL string literal of the text as it stands."""
    return f"r'{text}'"


def cel_number(expression: str) -> str:
    """Return CEL for the number that a Fraction or Decimal writes."""
    return (
        f"type({expression}) == int ? double({expression}) : {expression}.endsWith('%') ? "
        f"double({expression}.replace('%', '')) / 100.0 : double({expression})"
    )
