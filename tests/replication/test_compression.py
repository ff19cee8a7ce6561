"""A compressed payload expands to exactly what was announced, or is an error (I2, I9)."""

from __future__ import annotations

import pytest
import zstandard

from blockrep.errors import ProtocolError
from blockrep.replication.compression import ZstdCompressor, zstd_decompress

CONTENT = b"some text that repeats " * 4000


def test_what_was_compressed_comes_back() -> None:
    packed = ZstdCompressor().compress(memoryview(CONTENT))
    assert len(packed) < len(CONTENT) // 4
    assert zstd_decompress(memoryview(packed), len(CONTENT)) == CONTENT


@pytest.mark.parametrize("announced", [1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_than_announced_is_refused(announced: int) -> None:
    packed = ZstdCompressor().compress(memoryview(CONTENT))
    with pytest.raises(ProtocolError, match="size announced"):
        zstd_decompress(memoryview(packed), announced)


def test_a_frame_that_hides_its_size_is_refused() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(CONTENT)
    with pytest.raises(ProtocolError):
        zstd_decompress(memoryview(packed), len(CONTENT))


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"BRP1" * 9])
def test_what_is_no_frame_is_refused(damage: bytes) -> None:
    with pytest.raises(ProtocolError):
        zstd_decompress(memoryview(damage), 100)


def test_a_damaged_frame_is_refused() -> None:
    packed = bytearray(ZstdCompressor().compress(memoryview(CONTENT)))
    del packed[-8:]
    with pytest.raises(ProtocolError):
        zstd_decompress(memoryview(packed), len(CONTENT))


@pytest.mark.parametrize("extra", [b"\0", ZstdCompressor().compress(memoryview(b"more"))])
def test_what_follows_the_frame_is_refused(extra: bytes) -> None:
    packed = ZstdCompressor().compress(memoryview(CONTENT)) + extra
    with pytest.raises(ProtocolError, match="damaged"):
        zstd_decompress(memoryview(packed), len(CONTENT))
