"""Types and bounds of header keys: one small converter pair for each type named in PROTOCOL.md.

A field's ``decode`` takes what msgpack unpacked, checks type and bounds, and returns the Python
value; ``encode`` is its inverse and checks the same. Both raise ``ValueError``; :func:`decode_map`
and :func:`encode_map` add which key it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blockrep.model.names import is_safe
from blockrep.protocol.limits import MAX_U64

__all__ = [
    "Field",
    "array_of",
    "boolean",
    "decode_map",
    "encode_map",
    "identifier",
    "nested",
    "octets",
    "one_of",
    "optional",
    "text",
    "u64",
]

_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Field:
    """How one key travels. ``required``: absence is an error; else it decodes as ``default``."""

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    required: bool = True
    default: Any = None


def u64(minimum: int = 0, maximum: int = MAX_U64) -> Field:
    """An integer within bounds."""

    def check(value: object) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValueError(f"not an integer from {minimum} to {maximum}")
        return value

    return Field(check, check)


def _check_boolean(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("not a boolean")
    return value


boolean = Field(_check_boolean, _check_boolean)


def text(max_bytes: int) -> Field:
    """UTF-8 without control characters: what peers say ends on terminals and in logs."""

    def check(value: object) -> str:
        # The categories first: what they exclude (surrogates) cannot be encoded.
        if type(value) is not str or len(value) > max_bytes:
            raise ValueError(f"not text of at most {max_bytes} bytes")
        if not is_safe(value):
            raise ValueError("text with control characters")
        if len(value.encode()) > max_bytes:
            raise ValueError(f"not text of at most {max_bytes} bytes")
        return value

    return Field(check, check)


def one_of(*words: str) -> Field:
    """One of these words."""

    def check(value: object) -> str:
        if type(value) is not str or value not in words:
            raise ValueError(f"not one of {', '.join(words)}")
        return value

    return Field(check, check)


def octets(size_bytes: int) -> Field:
    """Exactly so many bytes."""

    def check(value: object) -> bytes:
        if type(value) is not bytes or len(value) != size_bytes:
            raise ValueError(f"not {size_bytes} bytes")
        return value

    return Field(check, check)


def _decode_identifier(value: object) -> str:
    if type(value) is not bytes or len(value) != _ID_BYTES:
        raise ValueError(f"not {_ID_BYTES} bytes")
    return value.hex()


def _encode_identifier(value: object) -> bytes:
    packed = bytes.fromhex(value) if type(value) is str else b""
    if len(packed) != _ID_BYTES or packed.hex() != value:
        raise ValueError(f"not {2 * _ID_BYTES} hexadecimal digits")
    return packed


identifier = Field(_decode_identifier, _encode_identifier)
"""16 bytes on the wire, 32 lower-case hexadecimal digits here."""


def array_of(element: Field, minimum: int, maximum: int) -> Field:
    """A tuple of elements, so many."""

    def check_count(count: int) -> None:
        if not minimum <= count <= maximum:
            raise ValueError(f"not an array of {minimum} to {maximum} elements")

    def decode(value: object) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError("not an array")
        check_count(len(value))
        return tuple(element.decode(part) for part in value)

    def encode(value: tuple[Any, ...]) -> list[Any]:
        check_count(len(value))
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
    """A map with fields of its own, built into a value by ``build(**attributes)``.

    ``fields``: key -> (attribute, field).
    """

    def decode(value: object) -> object:
        if type(value) is not dict:
            raise ValueError("not a map")
        return build(**decode_map(fields, value))

    def encode(value: object) -> dict[str, object]:
        return encode_map(fields, value)

    return Field(decode, encode)


def decode_map(
    fields: Mapping[str, tuple[str, Field]], header: Mapping[str, object]
) -> dict[str, Any]:
    """Check and convert a header; keys without a field are ignored (PROTOCOL.md: unknown keys).

    Raises:
        ValueError: names the key and what was expected.
    """
    attributes: dict[str, Any] = {}
    for key, (attribute, field) in fields.items():
        if key not in header:
            if field.required:
                raise ValueError(f"key {key!r} is missing")
            attributes[attribute] = field.default
            continue
        try:
            attributes[attribute] = field.decode(header[key])
        except ValueError as error:
            raise ValueError(f"key {key!r}: {error}") from error
    return attributes


def encode_map(fields: Mapping[str, tuple[str, Field]], value: object) -> dict[str, object]:
    """Return the header for a value; absent optional keys are left out.

    Raises:
        ValueError: names the key and what was expected (our own mistake).
    """
    header: dict[str, object] = {}
    for key, (attribute, field) in fields.items():
        try:
            encoded = field.encode(getattr(value, attribute))
        except ValueError as error:
            raise ValueError(f"key {key!r}: {error}") from error
        if encoded is not None:
            header[key] = encoded
    return header
