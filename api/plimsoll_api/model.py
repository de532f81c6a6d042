"""The base of every model of the contract, and the value types that people write in manifests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from plimsoll_api.rules import STRUCTURE_ONLY, VALIDATIONS, Rule, cel_text, to_camel

#: The type of the error that a model's own rules raise.
RULES = "rules"


class Model(BaseModel):
    """An immutable value that refuses unknown fields, keeps its rules and is camelCase on the wire."""

    #: Claims about several fields; the CRD carries the same in CEL.
    rules: ClassVar[tuple[Rule, ...]] = ()

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )

    @model_validator(mode="after")
    def _keep_rules(self, info: ValidationInfo) -> Self:
        if info.context is STRUCTURE_ONLY:
            return self
        broken = [f"{field}: {sentence}" if field else sentence for field, sentence in self.broken_rules()]
        if broken:
            raise PydanticCustomError(RULES, "{sentences}", {"sentences": "; ".join(broken)})
        return self

    def broken_rules(self, *, partly: bool = False) -> Iterator[tuple[str, str]]:
        """Yield (field, sentence) of every rule of this very model that does not hold; the field is camelCase.

        Of a model that is there only partly, a rule about a field that is lacking is passed over.
        """
        for rule in self.rules:
            try:
                broken = not rule.holds(self)
            except AttributeError:
                if not partly:
                    raise
                continue
            if broken:
                yield rule.field, rule.message
        for name, keys in _unique_lists(type(self)).items():
            seen: list[Any] = []
            for index, item in enumerate(getattr(self, name, []) if partly else getattr(self, name)):
                key = [getattr(item, key, item) if partly else getattr(item, key) for key in keys] or item
                if key in seen:
                    shown = ", ".join(str(part) for part in key) if keys else item
                    yield f"{to_camel(name)}[{index}]", f"must be unique in the list, got {shown} again"
                seen.append(key)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the rules to the schema."""
        own = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(own)[VALIDATIONS] = [rule.to_schema() for rule in cls.rules]
        return own

    def to_wire(self) -> dict[str, Any]:
        """Return the value as JSON types, camelCase, without the fields that are unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def canonical_json(self) -> bytes:
        """Return the one JSON form that digests are taken of: sorted keys, no spaces, UTF-8."""
        return canonical_json(self.to_wire())

    def content_digest(self) -> str:
        """Return `sha256:…` of the canonical JSON."""
        return digest_of(self.canonical_json())


@cache
def _unique_lists(model: type[Model]) -> dict[str, list[str]]:
    """Return the lists of a model whose items must differ, with the items' key fields (none: the items themselves)."""
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {
        name: [str(key) for key in cast(list[str], extra.get("x-kubernetes-list-map-keys", []))]
        for name, extra in extras.items()
        if isinstance(extra, dict) and extra.get("x-kubernetes-list-type") in ("set", "map")
    }


def canonical_json(value: Any) -> bytes:
    """Return the one JSON form of JSON types: sorted keys, no spaces, UTF-8; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(content: bytes) -> str:
    """Return `sha256:` and the hexadecimal digest of the content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


MAX_TEXT_LENGTH = 24


class _Text(str):
    """A string of one grammar; integers are taken where people naturally write them, floats never.

    YAML's unquoted 0.3 is a float; the API server refuses it for the same fields, so we do too.
    """

    pattern: ClassVar[str]
    takes_integers: ClassVar[bool] = False
    expected: ClassVar[str]

    def __new__(cls, text: str | int) -> Self:
        if len(str(text)) > MAX_TEXT_LENGTH or not re.fullmatch(cls.pattern, str(text), re.ASCII):
            raise ValueError(f"expected {cls.expected}, got {text!r}")
        return super().__new__(cls, text)

    @classmethod
    def _parse(cls, value: Any) -> Self:
        integer = isinstance(value, int) and not isinstance(value, bool)
        if not (isinstance(value, str) or (integer and cls.takes_integers)):
            raise ValueError(f"expected {cls.expected}, got {value!r}; write it as a string, in quotes")
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse, and write as a plain string."""
        return core_schema.no_info_plain_validator_function(
            cls._parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the grammar, with a rule whose message the API server shows beside the regular expression."""
        pattern = f"^({cls.pattern})$"
        text = "(type(self) == int ? string(self) : self)" if cls.takes_integers else "self"
        rule = {"rule": f"{text}.matches({cel_text(pattern)})", "message": f"expected {cls.expected}"}
        kind = {"x-kubernetes-int-or-string": True} if cls.takes_integers else {"type": "string"}
        return kind | {"pattern": pattern, "maxLength": MAX_TEXT_LENGTH, VALIDATIONS: [rule]}


class Fraction(_Text):
    """A share of a whole between 0 and 1, written "1%", "0.62%" or "0.0062" (a string, or the integer 0 or 1)."""

    pattern = r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,10})?)%|0(\.[0-9]{1,12})?|1(\.0{1,12})?"
    takes_integers = True
    expected = 'a fraction from 0 to 1, such as "1%", "0.62%" or "0.0062"'

    @property
    def value(self) -> float:
        """The fraction as a number from 0 to 1."""
        return float(self[:-1]) / 100 if self.endswith("%") else float(self)


class Decimal(_Text):
    """A number that is not negative, written as a string such as "1.05" or "0.001", or an integer."""

    pattern = r"[0-9]{1,9}(\.[0-9]{1,12})?"
    takes_integers = True
    expected = 'a number that is not negative, such as "1.05"'

    @property
    def value(self) -> float:
        """The number."""
        return float(self)


class Duration(_Text):
    """A positive span of time, written "50ms", "1.5s", "2m" or "500us"."""

    pattern = r"[0-9]{1,9}(\.[0-9]{1,6})?(us|ms|s|m|h)"
    expected = 'a duration such as "50ms", "1.5s" or "2m"'

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", self).groups()  # type: ignore[union-attr]
        # Divided, not multiplied by 1e-6: so 550us is the very number that 0.00055 is.
        return float(number) / {"us": 1e6, "ms": 1e3, "s": 1, "m": 1 / 60, "h": 1 / 3600}[unit]


class Quantity(_Text):
    """An amount of a compute resource as in a pod, such as "500m", "2" or "1Gi"."""

    pattern = r"[0-9]{1,15}(\.[0-9]{0,9})?(m|u|n|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]{1,2})?"
    takes_integers = True
    expected = 'a quantity that is not negative, such as "500m", "2" or "1Gi"'
