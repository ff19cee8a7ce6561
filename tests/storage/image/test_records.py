"""Records are read as they were written, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.errors import VolumeError
from blockrep.model.snapshots import Snapshot
from blockrep.storage.image.files import FileStamp
from blockrep.storage.image.records import (
    GoodRecord,
    Published,
    SourceRecord,
    StagingRecord,
    read_record,
    write_record,
)

SNAPSHOT = Snapshot(
    "a" * 32, "b" * 32, 3, 1_700_000_000, 4096, committed=True, name="x", target="t"
)
STAMP = FileStamp(1, 2, 3, 4)
STAGING = StagingRecord(
    "c" * 32, "b" * 32, "", "a" * 32, 3, 1_700_000_000, 4096, "full", "redo", STAMP, "00ff", 7, "11"
)


@pytest.mark.parametrize(
    "record",
    [
        SourceRecord(SNAPSHOT, "table", STAMP),
        GoodRecord(SNAPSHOT, 5, "replica", STAMP, "c" * 32, 12),
        STAGING,
        Published("a" * 32, STAMP),
        Published("a" * 32, None, STAMP),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_record_is_read_as_it_was_written(
    tmp_path: Path, record: SourceRecord | GoodRecord | StagingRecord | Published
) -> None:
    path = tmp_path / "record.json"
    write_record(path, record)
    assert read_record(path, type(record)) == record  # type: ignore[type-var]
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path / "record.json", Published) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"format": 2}', '{"format": 1, "snapshot_id": "a", "new": 1}', "{}"],
)
def test_a_damaged_or_newer_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(VolumeError, match=r"record\.json.*nothing was changed"):
        read_record(path, Published)


def test_a_transfer_becomes_a_good_snapshot() -> None:
    good = STAGING.good(b"\xaa", 6, "disk.img", STAMP)
    assert (good.order, good.content, good.replaces) == (6, "replica", STAMP)
    assert (good.redo_key, good.redo_bytes) == (STAGING.identity, STAGING.durable_bytes)
    assert (good.snapshot.digest, good.snapshot.id) == ("aa", "a" * 32)
