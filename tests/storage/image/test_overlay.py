"""An overlay shows the base as the redo file will have it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from blockrep.storage.image.overlay import OverlayReader
from blockrep.storage.image.redo import RedoLog
from storage.transfers import read_all

KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [50_000, 100_000, 130_000])
def test_equals_writing(tmp_path: Path, seed: int, size: int) -> None:
    rng = random.Random(seed)
    base = rng.randbytes(100_000)
    (tmp_path / "base").write_bytes(base)
    content = bytearray(base[:size].ljust(size, b"\0"))
    redo = RedoLog(tmp_path / "redo", KEY, 0)
    for _ in range(rng.choice([0, 3, 60])):
        offset = rng.randrange(size)
        length = min(rng.randint(1, 9000), size - offset)
        if rng.random() < 0.4:
            redo.clear(offset, length)
            content[offset : offset + length] = bytes(length)
        else:
            data = rng.randbytes(length)
            redo.write(offset, memoryview(data))
            content[offset : offset + length] = data
    with OverlayReader(tmp_path / "base", len(base), redo, size) as reader:
        assert read_all(reader) == content
        position = 0
        for extent in reader.allocated():
            assert not content[position : extent.offset_bytes].strip(b"\0")
            assert position <= extent.offset_bytes < extent.end_bytes <= size
            position = extent.end_bytes
        assert not content[position:].strip(b"\0")
        reader.confirm()
    redo.close()
