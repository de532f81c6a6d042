"""The base of every model of the contract, and the value types that people write in manifests."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema


class Model(BaseModel):
    """An immutable value that refuses unknown fields and is camelCase on the wire."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the value as JSON types, camelCase, without the fields that are unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def canonical_json(self) -> bytes:
        """Return the one JSON form that digests are taken of: sorted keys, no spaces, UTF-8."""
        return canonical_json(self.to_wire())

    def content_digest(self) -> str:
        """Return `sha256:…` of the canonical JSON."""
        return digest_of(self.canonical_json())


def canonical_json(value: Any) -> bytes:
    """Return the one JSON form of JSON types: sorted keys, no spaces, UTF-8; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(content: bytes) -> str:
    """Return `sha256:` and the hexadecimal digest of the content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class _Text(str):
    """A string of one grammar; integers are taken where people naturally write them, floats never.

    YAML's unquoted 0.3 is a float; the API server refuses it for the same fields, so we do too.
    """

    pattern: ClassVar[str]
    takes_integers: ClassVar[bool] = False
    expected: ClassVar[str]

    def __new__(cls, text: str | int) -> Self:
        if not re.fullmatch(cls.pattern, str(text)):
            raise ValueError(f"expected {cls.expected}, got {text!r}")
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: Any) -> Self:
            integer = isinstance(value, int) and not isinstance(value, bool)
            if not (isinstance(value, str) or (integer and cls.takes_integers)):
                raise ValueError(f"expected {cls.expected}, got {value!r}; quote it as a string")
            return cls(value)

        return core_schema.no_info_plain_validator_function(
            parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        if cls.takes_integers:
            return {"x-kubernetes-int-or-string": True, "pattern": f"^({cls.pattern})$", "maxLength": 24}
        return {"type": "string", "pattern": f"^({cls.pattern})$", "maxLength": 24}


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
        return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[unit]
