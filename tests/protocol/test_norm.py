"""PROTOCOL.md is the norm: its tables are read here and held against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from blockrep.protocol import limits
from blockrep.protocol.fields import Field
from blockrep.protocol.frames import FrameType
from blockrep.protocol.messages.codec import MESSAGE_CLASSES
from blockrep.protocol.messages.control import ABORT_ERRORS
from blockrep.protocol.transitions import TRANSITIONS, Side, State
from support.vectors import PROTO

TEXT = (PROTO / "PROTOCOL.md").read_text(encoding="utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line starts with ``heading``."""
    start = TEXT.index("\n" + heading) + 1
    lines = TEXT[start:].split("\n\n", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert set("".join(rows[1])) == {"-"}
    return rows[2:]


def test_transitions() -> None:
    between = TEXT.split("<!-- transitions -->")[1].split("<!-- /transitions -->")[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in between.strip().splitlines()
    ]
    assert rows[0] == ("state", "frame", "sent by", "next state")
    written = {
        (State(state), FrameType[frame], Side(sender)): State(after)
        for state, frame, sender, after in rows[2:]
    }
    assert len(written) == len(rows) - 2
    assert written == TRANSITIONS


def test_frame_types() -> None:
    senders: dict[FrameType, set[str]] = {one: set() for one in FrameType}
    for _, frame_type, side in TRANSITIONS:
        senders[frame_type].add(side.value)
    for both in (FrameType.PING, FrameType.ABORT):
        senders[both] = {"both"}
    rows = re.findall(r"^\| ([0-9a-f]{2}) \| ([A-Z]+) \| (\w+) \| ([^|]*)\|", TEXT, re.MULTILINE)
    assert [(int(number, 16), name) for number, name, _, _ in rows] == [
        (int(one), one.name) for one in FrameType
    ]
    assert {FrameType[name]: {side} for _, name, side, _ in rows} == senders
    with_payload = {name for _, name, _, payload in rows if payload.strip()}
    assert with_payload == {"VOLUME", "DATA", "DIGESTS"}


def keys_of_norm() -> Iterator[tuple[str, str, str, bool]]:
    """Yield (frame, key, type, required) of each key in the big table."""
    frame = ""
    for row in rows_below("| frame | key | type | meaning |"):
        frame = row[0] or frame
        types = row[2].removesuffix("?")
        for key in re.findall(r"`(\w+\??)`", row[1]):
            optional = key.endswith("?") or row[2].endswith("?")
            yield frame, key.removesuffix("?"), types, not optional


NORM_KEYS = list(keys_of_norm())


def test_the_table_names_the_keys_of_every_frame_in_their_order() -> None:
    for frame_type, message_class in MESSAGE_CLASSES.items():
        written = [key for frame, key, _, _ in NORM_KEYS if frame == frame_type.name]
        assert written == list(message_class.FIELDS), frame_type.name


@pytest.mark.parametrize(("frame", "key", "kind", "required"), NORM_KEYS)
def test_a_key_is_of_the_type_that_the_table_says(
    frame: str, key: str, kind: str, *, required: bool
) -> None:
    _, field = MESSAGE_CLASSES[FrameType[frame]].FIELDS[key]
    assert field.required is required
    if not required:
        assert field.decode(None) == field.default
    good, bad = samples(kind)
    for value in bad:
        with pytest.raises(ValueError):
            field.decode(value)
    assert any(accepts(field, value) for value in good)


def accepts(field: Field, value: object) -> bool:
    try:
        field.decode(value)
    except ValueError:
        return False
    return True


STAGING = {
    "identity": "x", "lineage": bytes(16), "id": bytes(16), "plan": bytes(32), "cursor": 0,
    "chain": bytes(32),
}  # fmt: skip
STAGE = {
    "lineage": bytes(16), "id": bytes(16), "sequence": 1, "created": 1, "size": 1, "shrink": False,
}  # fmt: skip


def samples(kind: str) -> tuple[list[object], list[object]]:
    """Return values of a type of the norm, at least one of which fits, and values that do not."""
    wrong: list[object] = [1.5, {1}, -1]
    if kind == "u64":
        # Bounds of single keys are in the vectors of invalid frames.
        return [0, 1000, 4096, 65536, 262144], [*wrong, 2**63, True, "1", b"1"]
    if kind == "boolean":
        return [True], [*wrong, 0, 1, "true", None]
    sizes = {"id": 16, "d32": 32, "16 bytes": 16, "8 bytes": 8}
    if kind in sizes:
        size = sizes[kind]
        return [bytes(size)], [*wrong, bytes(size - 1), bytes(size + 1), "x" * size]
    if match := re.fullmatch(r"text\((\d+)\)", kind):
        size = int(match[1])
        words: list[object] = ["push", "full", "x" * size, "é" * (size // 2)]
        return words, [*wrong, "x" * (size + 1), "é" * (size // 2 + 1), b"x", "\n", "\u200b"]
    if kind == "map":
        return [STAGING, STAGE], [*wrong, [], {}, "x"]
    if kind == "[u64, u64]":
        return [[1, 2]], [*wrong, [], [1], [1, 2, 3], [1, "2"]]
    if kind == "array of at most 32 text(32)":
        return [["x" * 32] * 32], [*wrong, ["x"] * 33, ["x" * 33], [1]]
    assert kind == "array of u64", kind
    return [[0, 0, 1]], [*wrong, [], ["x", 0, 1], [0] * 1537]


def test_maps_inside_headers_hold_the_keys_that_the_table_says() -> None:
    table = {row[1]: row[3] for row in rows_below("| frame | key | type | meaning |") if not row[0]}
    for name, sample in (("staging", STAGING), ("stage", STAGE)):
        assert set(re.findall(r"`(\w+)`", table[f"`{name}`"])) - {"base"} == set(sample)
        frame_type = FrameType.VOLUME if name == "staging" else FrameType.COMPARE
        _, field = MESSAGE_CLASSES[frame_type].FIELDS[name]
        for key in sample:
            with pytest.raises(ValueError, match=f"key '{key}' is missing"):
                field.decode({other: value for other, value in sample.items() if other != key})


def test_abort_codes() -> None:
    sentence = TEXT.split("`code` is one of: ")[1].split(". ")[0]
    assert re.findall(r"`([a-z-]+)`", sentence) == list(ABORT_ERRORS)


def test_limits() -> None:
    table = "\n".join(" | ".join(row) for row in rows_below("| what | limit |"))
    for number in (
        limits.MAX_HEADER_BYTES,
        limits.MAX_HEADER_ARRAY_ELEMENTS,
        limits.MAX_HEADER_MAP_KEYS,
        limits.MAX_HEADER_STRING_BYTES,
        limits.MAX_PAYLOAD_BYTES,
        limits.MAX_SEGMENTS,
        limits.MAX_SNAPSHOT_RECORDS,
    ):
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", table), number
    assert f"nested {limits.MAX_HEADER_NESTING} deep" in table
    assert f"at most {limits.MAX_WINDOW_BYTES >> 30} GiB" in table
    assert f"default {limits.DEFAULT_WINDOW_BYTES >> 20} MiB" in table
    assert f"2^{limits.MAX_SEQUENCE_STEP.bit_length() - 1} above that of the newest" in table
    assert f"at most {limits.MAX_TIMEOUT_MILLISECONDS:,}" in TEXT
