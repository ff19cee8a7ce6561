"""What is copied: contents that are always the same, and changes to them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
BLOCK_BYTES = 64 * KIB
TINY_BYTES = 4 * KIB
PAGE_BYTES = 8 * KIB
_SPOILT = b"\xa5" * MIB

Extents = list[tuple[int, int]]  # offset and length, bytes, ascending


def make_mixed(path: Path, size_bytes: int) -> None:
    """Write half random data, a quarter text, a quarter zeros, in runs of 1 MiB."""
    chooser = random.Random(1)
    text = _text()
    with path.open("wb") as file:
        for index in range(size_bytes // MIB):
            kind = index % 4
            if kind < 2:
                file.write(chooser.randbytes(MIB))
            elif kind == 2:
                file.write(_piece(text, chooser))
            else:
                file.write(bytes(MIB))


def make_sparse(path: Path, size_bytes: int) -> None:
    """Write random data to one MiB in ten; the rest is not allocated."""
    chooser = random.Random(2)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for index in range(0, size_bytes // MIB, 10):
            file.seek(index * MIB)
            file.write(chooser.randbytes(MIB))


def make_tiny(path: Path, size_bytes: int, count: int) -> None:
    """Write random data to ``count`` lone blocks of 4 KiB; the rest is not allocated."""
    chooser = random.Random(3)
    with path.open("wb", buffering=0) as file:
        file.truncate(size_bytes)
        for offset, length in lone_extents(chooser, size_bytes, TINY_BYTES, count):
            file.seek(offset)
            file.write(chooser.randbytes(length))


def make_compressible(path: Path, size_bytes: int) -> None:
    """Write seven parts text and one part random data: a third of it, compressed."""
    chooser = random.Random(4)
    text = _text()
    with path.open("wb") as file:
        for index in range(size_bytes // MIB):
            file.write(chooser.randbytes(MIB) if index % 8 == 7 else _piece(text, chooser))


@cache
def _text() -> bytes:
    words = ("error", "started", "connection", "from", "volume", "closed", "user", "bytes", "disk")
    chooser = random.Random(5)
    return b"".join(
        f"{n:08d} host{chooser.randrange(100)} {' '.join(chooser.choices(words, k=6))}\n".encode()
        for n in range(60_000)
    )


def _piece(text: bytes, chooser: random.Random) -> bytes:
    start = chooser.randrange(0, len(text) - MIB)
    return text[start : start + MIB]


def lone_extents(chooser: random.Random, size_bytes: int, length_bytes: int, count: int) -> Extents:
    """Choose extents of which no two touch, ascending; as many as there is room for, at most."""
    places = size_bytes // (2 * length_bytes)
    chosen = sorted(chooser.sample(range(places), min(count, places)))
    return [(place * 2 * length_bytes, length_bytes) for place in chosen]


def scattered(size_bytes: int, percent: int, round_number: int) -> Extents:
    """Choose so many of a hundred blocks of 64 KiB."""
    count = max(1, size_bytes // BLOCK_BYTES * percent // 100)
    return lone_extents(random.Random(f"scattered {round_number}"), size_bytes, BLOCK_BYTES, count)


def contiguous(size_bytes: int, percent: int, round_number: int) -> Extents:
    """Choose one run of so many of a hundred bytes, in whole blocks of 64 KiB."""
    length = max(1, size_bytes // BLOCK_BYTES * percent // 100) * BLOCK_BYTES
    chooser = random.Random(f"contiguous {round_number}")
    return [(chooser.randrange(0, (size_bytes - length) // BLOCK_BYTES) * BLOCK_BYTES, length)]


def database(size_bytes: int, count: int, round_number: int) -> Extents:
    """Choose pages of 8 KiB as a database writes them: four of five in a fifth of the volume."""
    chooser = random.Random(f"database {round_number}")
    places = size_bytes // PAGE_BYTES
    chosen = {chooser.randrange(places // 5 if number % 5 else places) for number in range(count)}
    return [(place * PAGE_BYTES, PAGE_BYTES) for place in sorted(chosen)]


def tiny(size_bytes: int, count: int, round_number: int) -> Extents:
    """Choose so many blocks of 4 KiB."""
    return lone_extents(random.Random(f"tiny {round_number}"), size_bytes, TINY_BYTES, count)


def overwrite(path: Path, extents: Extents, round_number: int) -> None:
    """Write random data there, in place."""
    chooser = random.Random(f"content {round_number}")
    with path.open("r+b", buffering=0) as file:
        for offset, length in extents:
            file.seek(offset)
            for part in parts(length):
                file.write(chooser.randbytes(part))


def spoil(path: Path, size_bytes: int) -> None:
    """Overwrite a destination in place, making it if need be: what a tool leaves out, shows.

    Its memory and blocks stay its own, so that no tool pays for getting them.
    """
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        for part in parts(size_bytes):
            file.write(_SPOILT[:part])


def parts(size_bytes: int) -> Iterator[int]:
    """Yield the lengths of the parts, of 1 MiB at most, that make up a size."""
    for start in range(0, size_bytes, MIB):
        yield min(MIB, size_bytes - start)


def warm_pages(folder: Path, size_bytes: int) -> None:
    """Touch as much memory as new files in the folder will take, just before a run.

    Memory that was freed more than about two seconds ago goes back to a hypervisor, and touching
    it again is five times slower: without this the order of the tools decides.
    """
    path = folder / "warm"
    spoil(path, size_bytes)
    path.unlink()


def same_content(left: Path, right: Path) -> bool:
    """Tell whether two files hold the same bytes."""
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as other:
        while True:
            ours, theirs = one.read(MIB), other.read(MIB)
            if ours != theirs:
                return False
            if not ours:
                return True
