"""Staging: what the driver must not do, and the need for room."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from blockrep.errors import InternalError, NoSpaceError
from blockrep.model.extents import Extent, ExtentKind, ExtentSummary
from blockrep.model.snapshots import Space
from blockrep.storage.image.staging import ImageStaging, refuse_without_room
from storage.image_volumes import ImageVolumes
from storage.transfers import Transfer, read_all

PLAN = ExtentSummary(1, 1000, 0, bytes(32))


@pytest.fixture
def staging(tmp_path: Path) -> ImageStaging:
    transfer = Transfer(ImageVolumes(tmp_path), None)
    staging = transfer.target.begin(transfer.request)
    assert isinstance(staging, ImageStaging)
    return staging


def test_nothing_is_written_past_the_end(staging: ImageStaging) -> None:
    end = staging.record.size_bytes
    with pytest.raises(InternalError):
        staging.write(end - 1, memoryview(b"12"))
    with pytest.raises(InternalError):
        staging.clear(Extent(end - 1, 2, ExtentKind.ZERO))
    staging.write(end - 1, memoryview(b"1"))
    staging.close()


def test_it_may_be_closed_twice_but_not_used_then(staging: ImageStaging) -> None:
    staging.close()
    staging.close()
    with pytest.raises(InternalError):
        staging.write(0, memoryview(b"1"))


def test_what_is_recorded_is_what_it_says(staging: ImageStaging) -> None:
    staging.write(0, memoryview(b"1"))
    staging.sync()
    staging.save_cursor(4096, b"\xaa" * 32)
    assert (staging.info.cursor_bytes, staging.info.chain) == (4096, b"\xaa" * 32)
    assert staging.info == staging.record.info
    staging.close()


@pytest.mark.parametrize(
    ("content", "plan", "chunks", "free_bytes", "fits"),
    [
        ("clone", PLAN, 0, 1000, True),
        ("clone", PLAN, 0, 999, False),
        ("clone", PLAN, 2, 8192, True),
        ("clone", PLAN, 2, 8191, False),
        ("file", PLAN, 2, 8192, True),
        ("redo", PLAN, 2, 16_383, False),  # the data is there twice while it is copied in
        ("redo", PLAN, 2, 16_384, True),
        ("redo", dataclasses.replace(PLAN, data_bytes=0), 0, 0, True),
    ],
)
def test_need_and_room_are_compared(
    content: str, plan: ExtentSummary, chunks: int, free_bytes: int, *, fits: bool
) -> None:
    space = Space(4096, free_bytes, 1 << 40)
    if fits:
        refuse_without_room(content, plan, chunks, space, Path("/x/y"))
        return
    with pytest.raises(NoSpaceError, match="nothing was changed"):
        refuse_without_room(content, plan, chunks, space, Path("/x/y"))


def test_what_an_adoption_starts_from_is_read_before_it_is_written(tmp_path: Path) -> None:
    volumes = ImageVolumes(tmp_path)
    if volumes.clones:
        pytest.skip("no redo files on this file system")
    volumes.make_foreign(b"x" * 1000)
    transfer = Transfer(volumes, None, mode="adopt")
    staging = transfer.target.begin(dataclasses.replace(transfer.request, plan=None))
    with staging.reader() as reader:
        assert read_all(reader) == (b"x" * 1000).ljust(transfer.new.size_bytes, b"\0")
    staging.write(0, memoryview(b"y"))
    with pytest.raises(InternalError):
        staging.reader()
    staging.close()
