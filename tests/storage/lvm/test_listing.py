"""Every snapshot of ours is listed under what it is a snapshot of, also when that is gone."""

from __future__ import annotations

from dataclasses import replace

from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm.listing import snapshots_by_volume
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import source_tags
from storage.lvm.builders import PLAIN


def snapshot_of(uuid: str, sequence: int) -> LogicalVolume:
    snapshot = Snapshot(
        f"{sequence:032x}",
        "a" * 32,
        sequence,
        1000,
        1 << 30,
        committed=True,
        target="tls://r:1/a/b",
    )
    tags = frozenset(source_tags(snapshot, uuid, "pool-uuid"))
    return replace(PLAIN, name=f"br_s_{sequence}", uuid=f"snapshot-{sequence}", tags=tags)


def test_snapshots_are_grouped_by_their_volume() -> None:
    volumes = [PLAIN, snapshot_of(PLAIN.uuid, 2), snapshot_of(PLAIN.uuid, 1)]
    ((title, snapshots),) = snapshots_by_volume(volumes)
    assert title == "volg/thin_volume (source)"
    assert [one.sequence for one in snapshots] == [1, 2]


def test_snapshots_of_a_volume_that_is_gone_are_listed_too() -> None:
    ((title, snapshots),) = snapshots_by_volume([snapshot_of("lost-uuid", 1)])
    assert "lost-uuid, which is gone" in title
    assert len(snapshots) == 1


def test_what_is_not_ours_is_not_listed() -> None:
    assert list(snapshots_by_volume([PLAIN])) == []
