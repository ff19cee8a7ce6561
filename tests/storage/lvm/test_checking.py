"""What is wrong is found with its remedy; --fix removes what is ours and left behind, only that."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blockrep.errors import BusyError, StorageError
from blockrep.model.findings import Finding, Level
from blockrep.model.snapshots import Snapshot
from blockrep.storage.locks import VolumeLock
from blockrep.storage.lvm.checking import check_lvm
from blockrep.storage.lvm.cursors import cursor_path
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata, record_path
from blockrep.storage.lvm.tags import source_tags, staging_tags
from storage.lvm.builders import request
from storage.lvm_simulation import Lv, SimulatedRunner
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import Transfer, push

NOW = 2_000_000_000
DAY = 86400


def findings(lvm: SimulatedLvmVolumes, now: float = NOW) -> list[Finding]:
    return list(check_lvm(lvm.settings, now, lvm.runner()))


def problems(lvm: SimulatedLvmVolumes, now: float = NOW) -> list[Finding]:
    """Return what is not well, apart from pools that queue: the simulated ones do."""
    return [
        one
        for one in findings(lvm, now)
        if one.level is not Level.OK and "when it is full" not in one.what
    ]


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def add_source(lvm: SimulatedLvmVolumes, of_uuid: str, created_seconds: int = NOW - DAY) -> Lv:
    snapshot = Snapshot(
        "1" * 32, "a" * 32, 1, created_seconds, 4096, committed=True, target="tls://r:1/a/b"
    )
    tags = source_tags(snapshot, of_uuid, lvm.origin.pool_uuid)
    lv = lvm.origin.add("br_s_aaaaaaaa_1_11111111", 4096, tags)
    lv.read_only = True
    return lv


def add_staging(lvm: SimulatedLvmVolumes, of_uuid: str) -> Lv:
    tags = staging_tags(request(), of_uuid, lvm.replica.pool_uuid, "copy", ready=True)
    return lvm.replica.add("br_t_abababab_1_01010101", 4096, tags)


def note(lvm: SimulatedLvmVolumes, **fields: int | None) -> Path:
    path = lvm.settings.state_directory / "metadata-snapshots" / f"{lvm.origin.pool_uuid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


def fix(finding: Finding) -> None:
    assert finding.fix is not None
    finding.fix()


def test_a_volume_whose_creation_was_cut_short_is_told_of_and_removed(
    lvm: SimulatedLvmVolumes,
) -> None:
    """Whatever else is done to its pool fails, whoever does it."""
    live = lvm.origin.volumes["live"]
    lv = add_source(lvm, live.uuid)
    lv.origin = live
    lvm.origin.note(lv)
    lvm.origin.make()
    found = only(problems(lvm))
    assert found.remedy == (
        "push to or from its pool again, or: lvremove -ff vga/br_s_aaaaaaaa_1_11111111"
    )
    assert found.fix is not None
    found.fix()
    assert set(lvm.origin.volumes) == {"live"}
    assert problems(lvm) == []


def test_a_host_that_replicates_is_well(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"content")
    snapshot = push(lvm, None)
    assert problems(lvm, snapshot.created_seconds + DAY) == []
    pools = [one.where for one in findings(lvm) if "free above the reserve" in one.what]
    assert pools == ["vga/pool", "vgb/pool"]


def test_a_pool_that_queues_when_it_is_full_is_warned_of(lvm: SimulatedLvmVolumes) -> None:
    found = [one for one in findings(lvm) if "when it is full" in one.what]
    assert {one.where for one in found} == {"vga/pool", "vgb/pool"}
    assert "lvchange --errorwhenfull y" in found[0].remedy


@pytest.mark.parametrize(
    ("mode", "needs_check", "exit_code", "remedy"),
    [
        ("ro", False, 10, "lvconvert --repair"),
        ("rw", True, 10, "--clear-needs-check-flag"),
        ("out_of_data_space", False, 6, "lvextend"),
    ],
)
def test_a_pool_that_takes_no_transfers_is_an_error(
    lvm: SimulatedLvmVolumes, mode: str, needs_check: bool, exit_code: int, remedy: str
) -> None:
    lvm.replica.mode, lvm.replica.needs_check = mode, needs_check
    finding = only(problems(lvm))
    assert (finding.level, finding.where) == (Level.ERROR, "vgb/pool")
    assert finding.exit_code == exit_code
    assert remedy in finding.remedy


def test_a_pool_at_its_reserve_is_warned_of(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"content")
    lvm.origin.total_chunks = 1
    finding = only(problems(lvm))
    assert "its reserve of data" in finding.what
    assert finding.remedy == "lvextend -L +SIZE vga/pool"


def test_a_snapshot_of_a_source_that_is_gone_is_removed(lvm: SimulatedLvmVolumes) -> None:
    lv = add_source(lvm, "another-uuid")
    finding = only(problems(lvm))
    assert finding.where == f"vga/{lv.name}"
    assert finding.remedy == f"lvremove vga/{lv.name}"
    fix(finding)
    assert lv.name not in lvm.origin.volumes
    assert problems(lvm) == []


def test_what_was_exchanged_since_is_not_removed(lvm: SimulatedLvmVolumes) -> None:
    lv = add_source(lvm, "another-uuid")
    finding = only(problems(lvm))
    del lvm.origin.volumes[lv.name]
    other = lvm.origin.add(lv.name, 4096)
    fix(finding)  # what was found is gone
    assert lvm.origin.volumes[lv.name] is other
    lv.tags = frozenset()
    lvm.origin.volumes[lv.name] = lv
    with pytest.raises(StorageError, match="was not removed"):
        fix(finding)
    assert lvm.origin.volumes[lv.name] is lv


def test_copied_tags_and_names_like_ours_mean_nothing(lvm: SimulatedLvmVolumes) -> None:
    lv = add_source(lvm, "another-uuid")
    lv.tags = frozenset(one.replace(lvm.origin.pool_uuid, "another-pool") for one in lv.tags)
    untouched = lvm.plant_unowned()
    assert problems(lvm) == []
    assert untouched()


def test_an_old_snapshot_tells_that_no_push_ended_well(lvm: SimulatedLvmVolumes) -> None:
    add_source(lvm, lvm.origin.volumes["live"].uuid, NOW - 8 * DAY)
    finding = only(problems(lvm))
    assert "8 days old: no push to tls://r:1/a/b" in finding.what
    assert finding.fix is None


def test_a_snapshot_from_the_future_tells_of_a_wrong_clock(lvm: SimulatedLvmVolumes) -> None:
    add_source(lvm, lvm.origin.volumes["live"].uuid, NOW + DAY)
    assert "a clock was, or is, wrong" in only(problems(lvm)).what


def test_an_unfinished_transfer_is_kept_while_it_can_go_on(lvm: SimulatedLvmVolumes) -> None:
    add_staging(lvm, "")
    assert problems(lvm, now=request().created_seconds + DAY) == []
    finding = only(problems(lvm, now=request().created_seconds + 30 * DAY))
    assert "unfinished for 30 days" in finding.what
    assert finding.fix is None


def test_a_transfer_to_a_replica_that_is_gone_is_removed(lvm: SimulatedLvmVolumes) -> None:
    lv = add_staging(lvm, "another-uuid")
    cursor = lvm.settings.state_directory / "cursors" / lv.uuid
    cursor.parent.mkdir(parents=True)
    cursor.touch()
    finding = only(problems(lvm))
    runtime = lvm.settings.runtime_directory
    with VolumeLock(runtime, "target vgb/copy", "a push"), pytest.raises(BusyError, match="a push"):
        fix(finding)
    assert lv.name in lvm.replica.volumes
    fix(finding)
    assert lv.name not in lvm.replica.volumes
    assert not cursor.exists()


def test_a_transfer_that_cannot_be_merged_any_more_is_told_of(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"content")
    base = push(lvm, None)
    transfer = Transfer(lvm, base)
    transfer.target.begin(transfer.request).close()
    now = base.created_seconds + DAY
    assert problems(lvm, now) == []
    name = next(one for one in lvm.replica.volumes if one.startswith("br_t_"))
    lvm.replica.volumes[name].origin = None
    finding = only(problems(lvm, now))
    assert "cannot merge into its replica" in finding.what
    assert finding.fix is None


@pytest.mark.parametrize("of_uuid", ["", "another-uuid"])
def test_a_snapshot_that_somebody_made_writable_is_told_of_and_left_alone(
    lvm: SimulatedLvmVolumes, of_uuid: str
) -> None:
    add_source(lvm, of_uuid or lvm.origin.volumes["live"].uuid).read_only = False
    finding = only(problems(lvm))
    assert "was made writable: it is left alone" in finding.what
    assert "lvchange --deltag blockrep vga/br_s_aaaaaaaa_1_11111111" in finding.remedy
    assert finding.fix is None


def test_a_good_snapshot_that_somebody_made_writable_is_told_of(lvm: SimulatedLvmVolumes) -> None:
    base = push(lvm, None)
    name = next(one for one in lvm.replica.volumes if one.startswith("br_g_"))
    lvm.replica.volumes[name].read_only = False
    finding = only(problems(lvm, base.created_seconds + DAY))
    assert (finding.where, finding.fix) == (f"vgb/{name}", None)
    assert "was made writable" in finding.what


def test_a_good_snapshot_is_never_removed(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"content")
    snapshot = push(lvm, None)
    del lvm.replica.volumes["copy"]
    finding = only(problems(lvm, snapshot.created_seconds + DAY))
    assert "perhaps the last copy" in finding.what
    assert finding.fix is None


def test_damaged_tags_are_told(lvm: SimulatedLvmVolumes) -> None:
    lv = add_staging(lvm, "")
    lv.tags = frozenset(one for one in lv.tags if not one.startswith("blockrep.seq="))
    assert only(problems(lvm)).level is Level.ERROR


def test_a_metadata_snapshot_of_a_dead_process_is_released(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    note(lvm, transaction=lvm.origin.told_transaction, root=77)
    finding = only(problems(lvm))
    assert "reserved by a blockrep that died" in finding.what
    fix(finding)
    assert problems(lvm) == []
    assert lvm.origin.held is None


def test_a_metadata_snapshot_of_another_program_is_left_alone(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    finding = only(problems(lvm))
    assert "reserved by another program" in finding.what
    assert "release_metadata_snap" in finding.remedy
    assert finding.fix is None


def test_a_metadata_snapshot_that_changed_hands_is_left_alone(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    note(lvm, transaction=lvm.origin.told_transaction, root=77)
    finding = only(problems(lvm))
    lvm.origin.held = (78, {})
    fix(finding)
    assert lvm.origin.held == (78, {})


def test_a_metadata_snapshot_in_use_is_no_problem(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    path = lvm.settings.runtime_directory / "locks" / f"pool-{lvm.origin.pool_uuid}.lock"
    path.parent.mkdir(parents=True)
    fd = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert problems(lvm) == []
    finally:
        os.close(fd)


def test_state_of_volumes_that_are_gone_is_removed(lvm: SimulatedLvmVolumes) -> None:
    kept = note(lvm, transaction=0, root=1)
    stale = [
        kept.with_name("gone-uuid.json"),
        lvm.settings.state_directory / "cursors" / "gone-uuid",
    ]
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"group": lvm.replica.vg_uuid}))
    found = problems(lvm)
    assert {one.where for one in found} == {str(path) for path in stale}
    for finding in found:
        fix(finding)
    assert kept.exists()
    assert not any(path.exists() for path in stale)


def test_state_of_a_group_that_is_not_here_is_kept(lvm: SimulatedLvmVolumes) -> None:
    """Its disks may come back: a transfer goes on, and a metadata snapshot is still held by us."""
    lvm.write_live(0, b"content" * lvm.unit_bytes)
    transfer = Transfer(lvm, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=4)
    staging.close()
    record = record_path(lvm.settings.state_directory, lvm.replica.pool_uuid)

    class Noting(SimulatedRunner):
        def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
            notes.append(record.read_bytes())
            return super().stream(argv)

    notes: list[bytes] = []
    group = VolumeGroup("vgb", lvm.settings, Noting([lvm.replica]))
    state = group.read()
    assert list(PoolMetadata(group, state.pool_of(state.volumes[0])).dump(state.volumes[0]))
    record.write_bytes(notes[0])  # as if it had died there
    untold = record.with_name("of-an-older-version.json")
    untold.write_text(json.dumps({"transaction": 1, "root": 1}))
    without = SimulatedRunner([lvm.origin])
    assert [one.where for one in check_lvm(lvm.settings, NOW, without) if one.fix is not None] == []
    lvm.replica.volumes.clear()
    lvm.replica.add("another", 4096)
    lvm.replica.pool_uuid = "another-pool"
    gone = {one.where for one in findings(lvm) if one.fix is not None}
    assert gone == {
        str(record),
        str(cursor_path(lvm.settings.state_directory, state.volumes[0].uuid)),
    }
