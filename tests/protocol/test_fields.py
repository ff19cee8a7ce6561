"""Each type of the norm checks type and bounds alike in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.protocol.fields import (
    Field,
    array_of,
    boolean,
    decode_map,
    encode_map,
    identifier,
    nested,
    octets,
    one_of,
    optional,
    text,
    u64,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@dataclass(frozen=True)
class Pair:
    left: int
    right: str | None


PAIR = nested({"l": ("left", u64(1, 9)), "r": ("right", optional(text(3)))}, Pair)

FIELDS: dict[str, Field] = {
    "u64": u64(),
    "bounded": u64(3, 5),
    "boolean": boolean,
    "text": text(8),
    "word": one_of("a", "b"),
    "octets": octets(4),
    "identifier": identifier,
    "array": array_of(u64(), 1, 3),
    "optional": optional(u64(), 7),
    "nested": PAIR,
}


@pytest.mark.parametrize("name", FIELDS)
@given(value=ANYTHING)
def test_whatever_comes_is_taken_or_a_value_error_and_goes_back_out(
    name: str, value: object
) -> None:
    field = FIELDS[name]
    try:
        decoded = field.decode(value)
    except ValueError:
        return
    again = field.encode(decoded)
    assert (again is None and not field.required) or field.decode(again) == decoded


@pytest.mark.parametrize("value", [2, 6, True, 3.0, "3", None])
def test_numbers_out_of_bounds(value: object) -> None:
    with pytest.raises(ValueError, match="not an integer from 3 to 5"):
        u64(3, 5).decode(value)


@pytest.mark.parametrize(
    "value",
    ["\n", "\x00", "\x7f", "\x9b", "\u200b", "\u202e", "\u2028", "\u2029", "\ud800", "\xad"],
)
def test_text_that_could_fool_a_terminal(value: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        text(8).decode(value)


def test_text_is_measured_in_bytes() -> None:
    assert text(4).decode("éé") == "éé"
    for value in ("ééé", "xxxxx"):
        with pytest.raises(ValueError, match="at most 4 bytes"):
            text(4).encode(value)


@pytest.mark.parametrize("value", ["", "ab", "AB" * 16, "ab " * 16, "zz" * 16, bytes(16), None])
def test_identifiers_are_lower_case_hexadecimal(value: object) -> None:
    with pytest.raises(ValueError):
        identifier.encode(value)
    assert identifier.decode(identifier.encode("ab" * 16)) == "ab" * 16


def test_an_array_has_its_bounds_in_both_directions() -> None:
    field = array_of(u64(), 1, 2)
    assert field.decode([1, 2]) == (1, 2)
    assert field.encode((1, 2)) == [1, 2]
    for count in (0, 3):
        with pytest.raises(ValueError, match="array of 1 to 2"):
            field.decode([0] * count)
        with pytest.raises(ValueError, match="array of 1 to 2"):
            field.encode((0,) * count)
    with pytest.raises(ValueError, match="not an array"):
        field.decode("12")


def test_optional_keys_are_absent_or_nil() -> None:
    fields = {"a": ("left", u64()), "b": ("right", optional(text(9)))}
    assert decode_map(fields, {"a": 1}) == {"left": 1, "right": None}
    assert decode_map(fields, {"a": 1, "b": None}) == {"left": 1, "right": None}
    assert encode_map(fields, Pair(1, None)) == {"a": 1}
    assert encode_map(fields, Pair(1, "x")) == {"a": 1, "b": "x"}


def test_unknown_keys_are_ignored() -> None:
    assert decode_map({"a": ("left", u64())}, {"a": 1, "later": object()}) == {"left": 1}


def test_errors_name_the_key() -> None:
    fields = {"p": ("pair", PAIR)}
    with pytest.raises(ValueError, match=r"^key 'p': key 'l' is missing$"):
        decode_map(fields, {"p": {}})
    with pytest.raises(ValueError, match=r"^key 'p': not a map$"):
        decode_map(fields, {"p": 1})
    with pytest.raises(ValueError, match=r"^key 'a': not an integer"):
        encode_map({"a": ("left", u64())}, Pair(-1, None))
