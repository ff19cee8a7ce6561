"""Leaving out unchanged pages never leaves out a changed one, whatever the base does (I2)."""

from __future__ import annotations

import logging
import random

import pytest

from blockrep.errors import StorageError
from blockrep.replication.page_delta import PAGE_BYTES, PageDelta
from support.readers import BytesReader

MIB = 1024 * 1024
BLOCK = 16 * PAGE_BYTES


class Broken(BytesReader):
    """Fails from the second block on."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        if offset_bytes >= BLOCK:
            raise StorageError("cannot read", where=f"offset {offset_bytes}")
        super().read_into(offset_bytes, buffer)


def test_runs_of_changed_pages_are_found() -> None:
    base = random.Random(1).randbytes(BLOCK)
    content = bytearray(base)
    for page in (0, 3, 4, 15):
        content[page * PAGE_BYTES + 17] ^= 1
    delta = PageDelta(BytesReader(base), BLOCK, always=False)
    assert delta.load(0, BLOCK)
    assert not delta.is_same(content, 0, BLOCK, 0)
    runs = [
        (start // PAGE_BYTES, end // PAGE_BYTES)
        for start, end in delta.changed_pages(content, 0, BLOCK, 0)
    ]
    assert runs == [(0, 1), (3, 5), (15, 16)]


def test_past_the_end_of_the_base_nothing_is_compared() -> None:
    delta = PageDelta(BytesReader(bytes(BLOCK)), BLOCK, always=True)
    assert delta.load(0, BLOCK)
    assert not delta.load(PAGE_BYTES, BLOCK)


def test_a_base_that_cannot_be_read_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    reader = Broken(bytes(4 * BLOCK))
    delta = PageDelta(reader, BLOCK, always=True)
    assert delta.load(0, BLOCK)
    with caplog.at_level(logging.WARNING):
        assert not delta.load(BLOCK, BLOCK)
    assert "sent whole" in caplog.text
    assert not delta.load(0, BLOCK)
    assert len(reader.reads) == 1


@pytest.mark.parametrize("always", [False, True])
def test_it_pauses_where_nothing_is_unchanged_and_tries_again(always: bool) -> None:
    base, content = bytes(MIB), bytearray(b"\x01" * MIB)
    delta = PageDelta(BytesReader(base), MIB, always=always)
    compared = []
    for number in range(400):
        loaded = delta.load(0, MIB)
        compared.append(loaded)
        if loaded:
            assert not delta.is_same(content, 0, MIB, 0)
            assert list(delta.changed_pages(content, 0, MIB, 0)) == [(0, MIB)]
        assert loaded or number >= 16, "16 MiB are a fair trial"
    if always:
        assert all(compared)
    else:
        assert sum(compared) < 80
        assert any(compared[20:]), "it tries again"


def test_it_goes_on_where_most_is_unchanged() -> None:
    base = bytearray(MIB)
    content = bytearray(base)
    content[0] = 1
    delta = PageDelta(BytesReader(bytes(base)), MIB, always=False)
    for _ in range(200):
        assert delta.load(0, MIB)
        assert list(delta.changed_pages(content, 0, MIB, 0)) == [(0, PAGE_BYTES)]
