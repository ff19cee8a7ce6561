"""Types and bounds of header keys: one small converter pair for each type named in PROTOCOL.md.

A field's ``decode`` takes what msgpack unpacked, checks type and bounds, and returns the Python value; ``encode`` is its inverse. Both
raise ``ValueError``; the caller knows which key it was.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Field", "array_of", "boolean", "decode_map", "encode_map", "identifier", "nested", "octets", "optional", "text", "u64"]

_MAX_U64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Field:
    """How one key travels. ``required``: absence is an error; else it decodes as ``default``."""

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    required: bool = True
    default: Any = None


def _fail(what: str) -> ValueError:
    return ValueError(what)


def u64(minimum: int = 0, maximum: int = _MAX_U64) -> Field:
    """An integer within bounds."""

    def check(value: object) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise _fail(f"not an integer from {minimum} to {maximum}")
        return value

    return Field(check, check)


def _check_boolean(value: object) -> bool:
    if type(value) is not bool:
        raise _fail("not a boolean")
    return value


boolean = Field(_check_boolean, _check_boolean)


def text(max_bytes: int) -> Field:
    """UTF-8 without control characters: peers' text ends on terminals and in logs."""

    def check(value: object) -> str:
        if type(value) is not str or len(value.encode()) > max_bytes:
            raise _fail(f"not text of at most {max_bytes} bytes")
        if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in value):
            raise _fail("text with control characters")
        return value

    return Field(check, check)


def octets(size_bytes: int) -> Field:
    """Exactly so many bytes."""

    def check(value: object) -> bytes:
        if type(value) is not bytes or len(value) != size_bytes:
            raise _fail(f"not {size_bytes} bytes")
        return value

    return Field(check, check)


def _decode_identifier(value: object) -> str:
    if type(value) is not bytes or len(value) != 16:
        raise _fail("not 16 bytes")
    return value.hex()


identifier = Field(_decode_identifier, bytes.fromhex)


def array_of(element: Field, minimum: int, maximum: int) -> Field:
    """A tuple of elements, so many."""

    def decode(value: object) -> tuple[Any, ...]:
        if type(value) is not list or not minimum <= len(value) <= maximum:
            raise _fail(f"not an array of {minimum} to {maximum} elements")
        return tuple(element.decode(part) for part in value)

    def encode(value: tuple[Any, ...]) -> list[Any]:
        return [element.encode(part) for part in value]

    return Field(decode, encode)


def optional(field: Field, default: object = None) -> Field:
    """A key that may be absent or nil and then means ``default``."""
    return Field(
        lambda value: default if value is None else field.decode(value),
        lambda value: None if value == default else field.encode(value),
        required=False,
        default=default,
    )


def nested(fields: Mapping[str, tuple[str, Field]], build: Callable[..., Any]) -> Field:
    """A map with fields of its own (key -> attribute, field), built into a value by ``build(**attributes)``."""

    def decode(value: object) -> object:
        if not isinstance(value, dict):
            raise _fail("not a map")
        return build(**decode_map(fields, value))

    def encode(value: object) -> dict[str, object]:
        return encode_map(fields, value)

    return Field(decode, encode)


def decode_map(fields: Mapping[str, tuple[str, Field]], header: Mapping[str, object]) -> dict[str, Any]:
    """Check and convert a header; keys without a field are ignored (PROTOCOL.md: unknown keys).

    Raises:
        ValueError: names the key and what was expected.
    """
    attributes: dict[str, Any] = {}
    for key, (attribute, field) in fields.items():
        if key not in header and field.required:
            raise _fail(f"key {key!r} is missing")
        try:
            attributes[attribute] = field.decode(header[key]) if key in header else field.default
        except ValueError as error:
            raise _fail(f"key {key!r}: {error}") from error
    return attributes


def encode_map(fields: Mapping[str, tuple[str, Field]], value: object) -> dict[str, object]:
    """Return the header for a value; absent optional keys are left out."""
    header = {}
    for key, (attribute, field) in fields.items():
        encoded = field.encode(getattr(value, attribute))
        if encoded is not None:
            header[key] = encoded
    return header
