"""The simulated disk: a model of bytes, copies that share, a cache that a crash empties."""

from __future__ import annotations

import random

import pytest

from blockrep.errors import InternalError, StorageError
from blockrep.model.extents import ExtentKind
from blockrep.storage.memory.disk import MemoryReader, PagedFile

PAGE = 512
SIZE = 20 * PAGE + 100


@pytest.mark.parametrize("seed", range(10))
def test_equals_an_array_of_bytes(seed: int) -> None:
    rng = random.Random(seed)
    file, content = PagedFile(SIZE, PAGE), bytearray(SIZE)
    copies: list[tuple[PagedFile, bytes]] = []
    for _ in range(60):
        size = len(content)
        offset = rng.randrange(size)
        length = min(rng.randint(1, 3 * PAGE), size - offset)
        step = rng.random()
        if step < 0.5:
            data = rng.randbytes(length)
            file.write(offset, data)
            content[offset : offset + length] = data
        elif step < 0.8:
            file.clear(offset, length)
            content[offset : offset + length] = bytes(length)
        elif step < 0.9:
            size = rng.choice([SIZE // 2, SIZE, SIZE + 7])
            file.resize(size)
            content = content[:size].ljust(size, b"\0")
        else:
            copies.append((file.copy(), bytes(content)))
        assert file.read(0, len(content)) == content
    for copy, expected in copies:
        assert copy.read(0, len(expected)) == expected
    mapped = bytearray(len(content))
    for extent in file.extents():
        part = slice(extent.offset_bytes, extent.end_bytes)
        mapped[part] = content[part]
    assert mapped == content


def test_a_difference_names_what_was_written_and_what_was_unmapped() -> None:
    base = PagedFile(SIZE, PAGE)
    base.write(0, b"x" * SIZE)
    new = base.copy()
    assert not list(new.difference(base))
    new.write(PAGE + 5, b"y")
    new.clear(3 * PAGE, 2 * PAGE)
    found = [(one.offset_bytes, one.length_bytes, one.kind) for one in new.difference(base)]
    assert found == [(PAGE, PAGE, ExtentKind.DATA), (3 * PAGE, 2 * PAGE, ExtentKind.DISCARD)]


def test_a_crash_takes_back_what_was_not_synced() -> None:
    file = PagedFile(SIZE, PAGE)
    file.write(0, b"durable" * 200)
    file.sync()
    before = file.read(0, SIZE)
    file.write(0, b"volatile")
    file.clear(PAGE, PAGE)
    file.write(5 * PAGE, b"volatile")
    file.lose_unsynced(lambda _offset: False)
    assert file.read(0, SIZE) == before
    file.write(0, b"A")
    file.write(5 * PAGE, b"B")
    file.lose_unsynced(lambda offset: offset == 5 * PAGE)
    assert file.read(0, 1) == before[:1]
    assert file.read(5 * PAGE, 1) == b"B"
    assert not file.unsynced


def test_a_crash_tears_a_page_between_sectors() -> None:
    file = PagedFile(SIZE, 4 * PAGE)
    file.write(0, b"A" * 4 * PAGE)
    file.sync()
    file.write(0, b"B" * 4 * PAGE)
    file.lose_unsynced(lambda offset: offset == 2 * PAGE)
    assert file.read(0, 4 * PAGE) == b"A" * 2 * PAGE + b"B" * PAGE + b"A" * PAGE


def test_frozen_content_cannot_be_written() -> None:
    file = PagedFile(SIZE, PAGE)
    file.frozen = True
    with pytest.raises(InternalError):
        file.write(0, b"x")
    with pytest.raises(InternalError):
        file.clear(0, 1)
    with pytest.raises(InternalError):
        PagedFile(SIZE, PAGE).write(SIZE, b"x")


def test_a_reader_knows_where_it_ends() -> None:
    with MemoryReader(PagedFile(SIZE, PAGE)) as reader, pytest.raises(StorageError):
        reader.read_into(SIZE - 1, memoryview(bytearray(2)))
