"""Digest tables: what a snapshot was, where the file system cannot keep its content.

One XXH3-128 digest for each block of 64 KiB, keyed with a random seed, so that nobody who writes
the file's content can aim at two blocks with one digest. A table inherits the seed of the table
that it is compared with. A digest of sixteen zero bytes means *not known yet*. The header is
written last, over a synced body that it holds the digest of: a torn table is no table.

While it grows it is synced before anything is sent, and has a mark from then on, by which the next
process goes on with it: what was sent before stands in it.

::

     0  magic "blockrep digests"
    16  version u32, block bytes u32, size u64, seed u64, all little-endian
    40  snapshot id, 16 bytes
    56  XXH3-128 of the body
    72  XXH3-128 of bytes 0 to 71; all of the header is zeros until the table is sealed
   512  mark of a table that grows: seed u64, XXH3-128 of the snapshot's id and it
  4096  digests, 16 bytes each
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import xxhash

from blockrep.errors import NoSpaceError, VolumeError
from blockrep.storage.files import sync_directory, write_full
from blockrep.storage.image.files import read_full, space_of

__all__ = [
    "BLOCK_BYTES",
    "DIGEST_BYTES",
    "UNKNOWN",
    "Blocks",
    "DigestTable",
    "refuse_without_table_room",
]

BLOCK_BYTES = 64 * 1024
DIGEST_BYTES = 16
UNKNOWN = bytes(DIGEST_BYTES)

_MAGIC = b"blockrep digests"
_VERSION = 1
_HEADER = struct.Struct("<16sLLQQ16s16s")
_MARK_OFFSET = 512
_SEED = struct.Struct("<Q")
_BODY_OFFSET = 4096
_COPY_BYTES = 1024 * 1024


class Blocks:
    """The blocks of a volume.

    ``count`` of them, the last of which may be short; and what the digests of zeros are.
    """

    def __init__(self, size_bytes: int, seed: int) -> None:
        self.size_bytes = size_bytes
        self.seed = seed
        self.count = -(-size_bytes // BLOCK_BYTES)
        self._zero = xxhash.xxh3_128_digest(bytes(BLOCK_BYTES), seed)
        self._last_zero = xxhash.xxh3_128_digest(
            bytes(size_bytes % BLOCK_BYTES or BLOCK_BYTES), seed
        )

    def zero_digests(self, first: int, count: int) -> bytes:
        """Return what the entries of some blocks are if they are full of zeros."""
        if count and first + count == self.count:
            return self._zero * (count - 1) + self._last_zero
        return self._zero * count


class DigestTable:
    """The table of one snapshot, open. A context manager.

    Attributes:
        blocks: what the entries are of.
        sealed: complete, durable and not to be changed any more.
    """

    def __init__(self, fd: int, snapshot_id: str, blocks: Blocks, *, sealed: bool) -> None:
        self._fd = fd
        self._snapshot_id = snapshot_id
        self.blocks = blocks
        self.sealed = sealed
        self._marked = False
        self._is_synced = False  # nor is what another process put, perhaps

    @classmethod
    def create(cls, path: Path, snapshot_id: str, size_bytes: int, seed: int) -> Self:
        """Begin an empty table, in place of one that may be there. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        table = cls(fd, snapshot_id, Blocks(size_bytes, seed), sealed=False)
        try:
            os.ftruncate(fd, _BODY_OFFSET + table.blocks.count * DIGEST_BYTES)
            sync_directory(path.parent)  # a seal is for a table that will be found
        except OSError:
            table.close()
            raise
        return table

    @classmethod
    def reopen(cls, path: Path, snapshot_id: str, size_bytes: int) -> Self | None:
        """Go on with a table that grows; None: there is none.

        Raises OSError.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            mark = os.pread(fd, _SEED.size + DIGEST_BYTES, _MARK_OFFSET)
            if len(mark) == _SEED.size + DIGEST_BYTES:
                (seed,) = _SEED.unpack_from(mark)
                if mark[_SEED.size :] == _mark_digest(snapshot_id, seed):
                    table = cls(fd, snapshot_id, Blocks(size_bytes, seed), sealed=False)
                    table._marked = True
                    return table
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open_sealed(cls, path: Path, snapshot_id: str, size_bytes: int) -> Self | None:
        """Open a complete table; None if there is none, or it was never sealed.

        Raises:
            VolumeError: it is damaged, or belongs to another snapshot.
            OSError: reading failed.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            header = os.pread(fd, _HEADER.size + DIGEST_BYTES, 0)
            if header == bytes(len(header)):  # not sealed
                os.close(fd)
                return None
            return cls._opened(fd, header, path, snapshot_id, size_bytes)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def _opened(cls, fd: int, header: bytes, path: Path, snapshot_id: str, size_bytes: int) -> Self:
        fields = header[: _HEADER.size]
        intact = xxhash.xxh3_128_digest(fields) == header[_HEADER.size :]
        if intact:
            magic, version, block_bytes, size, seed, owner, body_digest = _HEADER.unpack(fields)
            expected = (_MAGIC, _VERSION, BLOCK_BYTES, size_bytes, bytes.fromhex(snapshot_id))
            if (magic, version, block_bytes, size, owner) == expected:
                table = cls(fd, snapshot_id, Blocks(size_bytes, seed), sealed=True)
                if table._body_digest() == body_digest:
                    return table
        raise VolumeError(
            "the digest table is damaged or belongs to another snapshot",
            where=str(path),
            safe="the volume and its replica are untouched",
            next_step="push with --adopt: it compares both ends and makes a new table",
        )

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the table."""
        self.close()

    def close(self) -> None:
        """Close the table."""
        os.close(self._fd)

    def get(self, first: int, count: int) -> bytes:
        """Return the entries of some blocks.

        Unknown ones, and those past the end, are ``UNKNOWN``.
        """
        length = count * DIGEST_BYTES
        return os.pread(self._fd, length, _BODY_OFFSET + first * DIGEST_BYTES).ljust(length, b"\0")

    def put(self, first: int, digests: bytes) -> None:
        """Store the entries of some blocks. Raises OSError."""
        self._is_synced = False
        write_full(self._fd, memoryview(digests), _BODY_OFFSET + first * DIGEST_BYTES)

    def learn(self, first: int, digests: bytes) -> bool:
        """Store the entries of some blocks; False: others are known. Raises OSError."""
        known = self.get(first, len(digests) // DIGEST_BYTES)
        if known == digests:
            return True
        for at in range(0, len(digests), DIGEST_BYTES):
            if known[at : at + DIGEST_BYTES] not in {UNKNOWN, digests[at : at + DIGEST_BYTES]}:
                return False
        self.put(first, digests)
        return True

    def sync(self) -> None:
        """Make durable what was put, and the table one to go on with. Raises OSError."""
        if self.sealed or self._is_synced:
            return
        os.fdatasync(self._fd)
        if not self._marked:
            seed = self.blocks.seed
            mark = _SEED.pack(seed) + _mark_digest(self._snapshot_id, seed)
            write_full(self._fd, memoryview(mark), _MARK_OFFSET)
            os.fdatasync(self._fd)
            self._marked = True
        self._is_synced = True

    def forget(self, first: int) -> None:
        """Know nothing of a block and those after it any more. Raises OSError."""
        os.ftruncate(self._fd, _BODY_OFFSET + first * DIGEST_BYTES)
        os.ftruncate(self._fd, _BODY_OFFSET + self.blocks.count * DIGEST_BYTES)

    def seal(self) -> None:
        """Make the table durable, then valid. Raises OSError."""
        os.fsync(self._fd)
        owner = bytes.fromhex(self._snapshot_id)
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            BLOCK_BYTES,
            self.blocks.size_bytes,
            self.blocks.seed,
            owner,
            self._body_digest(),
        )
        write_full(self._fd, memoryview(header + xxhash.xxh3_128_digest(header)), 0)
        os.fsync(self._fd)
        self.sealed = True

    def digests(self) -> Iterator[bytes]:
        """Yield all entries, in order."""
        per_read = _COPY_BYTES // DIGEST_BYTES
        for first in range(0, self.blocks.count, per_read):
            entries = self.get(first, min(per_read, self.blocks.count - first))
            for at in range(0, len(entries), DIGEST_BYTES):
                yield entries[at : at + DIGEST_BYTES]

    def _body_digest(self) -> bytes:
        state = xxhash.xxh3_128()
        remaining = self.blocks.count * DIGEST_BYTES
        view = memoryview(bytearray(min(remaining, _COPY_BYTES)))
        position = _BODY_OFFSET
        while remaining:
            part = view[: min(remaining, len(view))]
            if not read_full(self._fd, part, position):
                return UNKNOWN  # cut short: equals no digest
            state.update(part)
            position += len(part)
            remaining -= len(part)
        return state.digest()


def _mark_digest(snapshot_id: str, seed: int) -> bytes:
    return xxhash.xxh3_128_digest(f"{snapshot_id} {seed}".encode())


def refuse_without_table_room(size_bytes: int, directory: Path) -> None:
    """Raise NoSpaceError unless a table for a volume of that size takes half of what is free (I8).

    Entries of holes are written, too: the table of a sparse file can be larger than the file. No
    reserve is kept beyond that: where images lie, file systems are often nearly full.

    Raises OSError, too.
    """
    need_bytes = _BODY_OFFSET + -(-size_bytes // BLOCK_BYTES) * DIGEST_BYTES
    free_bytes = space_of(directory, 0).free_bytes
    if 2 * need_bytes > free_bytes:
        raise NoSpaceError(
            f"its digest table needs {need_bytes} bytes, which is more than half of what is free",
            where=str(directory),
            safe="nothing was changed",
            next_step="make room, then push again",
        )
