"""Changes are rounded to chunks as dm-thin would tell them, and the program is the product."""

from __future__ import annotations

import subprocess

import pytest

from blockrep.model.extents import Extent, ExtentKind
from chunked import by_chunks, chunked_argv


def test_chunks_that_are_touched_are_told_once_and_merged() -> None:
    changed = [(5, 1), (8, 3), (11, 1), (40, 4), (50, 1), (97, 3)]
    extents = [Extent(offset, length, ExtentKind.DATA) for offset, length in changed]
    chunks = [(one.offset_bytes, one.length_bytes) for one in by_chunks(extents, 10, 99)]
    assert chunks == [(0, 20), (40, 20), (90, 9)]
    assert list(by_chunks([], 10, 99)) == []


def test_what_was_discarded_is_not_rounded() -> None:
    with pytest.raises(ValueError, match="what was written"):
        list(by_chunks([Extent(0, 5, ExtentKind.DISCARD)], 10, 99))


def test_it_is_the_product() -> None:
    argv = [*chunked_argv(65536), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("blockrep ")
