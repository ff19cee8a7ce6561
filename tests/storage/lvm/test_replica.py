"""What somebody wrote to a replica is never taken back unasked, wherever a crash came (I2, I7)."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence

import pytest

from blockrep.errors import DivergedError, StorageError, VolumeError
from blockrep.model.extents import Extent, count_chunks, summarize
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.storage.interface import Staging
from blockrep.storage.lvm.runner import CommandResult
from blockrep.storage.lvm.target import LvmTarget
from storage.lvm_simulation import SimulatedRunner
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import Transfer, adopt, push
from storage.volumes import CrashError

NAME = VolumeName(vg="vgb", lv="copy")
WRITTEN = b"written by whoever promoted it"
WRITTEN_AT = 8192


class DiesAfterCommit(SimulatedRunner):
    """The process dies with the first command after the one that is the commit point."""

    committed = False

    def run(self, argv: Sequence[str]) -> CommandResult:
        if self.committed:
            raise CrashError
        self.committed = argv[0] == "lvcreate" and "-pr" in argv
        return super().run(argv)


def commit_and_die(lvm: SimulatedLvmVolumes, base: Snapshot | None, mode: str = "") -> Transfer:
    transfer = Transfer(lvm, base, mode=mode)
    transfer.target = LvmTarget(NAME, lvm.settings, DiesAfterCommit([lvm.replica]))
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    with pytest.raises(CrashError):
        transfer.target.commit(staging, transfer.digest)
    lvm.replica.close_all()
    return transfer


def write(lvm: SimulatedLvmVolumes) -> None:
    copy = lvm.replica.volumes["copy"]
    lvm.replica.write(copy, WRITTEN_AT, WRITTEN)
    lvm.replica.sync(copy)


def is_kept(lvm: SimulatedLvmVolumes) -> bool:
    copy = lvm.replica.volumes["copy"]
    return lvm.replica.read(copy, WRITTEN_AT, len(WRITTEN)) == WRITTEN


@pytest.fixture
def base(lvm: SimulatedLvmVolumes) -> Snapshot:
    lvm.write_live(0, b"one")
    made = push(lvm, None)
    lvm.write_live(0, b"two")
    return made


@pytest.mark.parametrize("again", [False, True])
def test_a_replica_promoted_after_a_crash_keeps_what_was_written(
    lvm: SimulatedLvmVolumes, base: Snapshot, caplog: pytest.LogCaptureFixture, *, again: bool
) -> None:
    """The source is gone, somebody runs the replica; then the server is asked anything."""
    transfer = commit_and_die(lvm, base)
    copy = lvm.replica.volumes["copy"]
    copy.read_only, copy.opened = False, 1
    write(lvm)
    before = set(lvm.replica.volumes)
    with pytest.raises(VolumeError, match=r"in use.*; its newest snapshot waits to be shown"):
        lvm.target().inspect()
    assert not copy.read_only
    assert set(lvm.replica.volumes) == before
    copy.opened, copy.read_only = 0, again  # shut down; and perhaps read-only once more
    with caplog.at_level(logging.WARNING):
        found = lvm.target().inspect()
    assert "it keeps what was written" in caplog.text
    assert found.drifted
    assert [one.id for one in found.snapshots] == [base.id, transfer.new.id]
    assert is_kept(lvm)
    committed = transfer.source.mark_committed(transfer.new)
    with pytest.raises(DivergedError, match="written to"):
        push(lvm, committed)
    assert is_kept(lvm)
    adopt(lvm)
    assert lvm.read_replica() == lvm.read_live()
    assert not [one for one in lvm.replica.volumes if one.startswith("br_t_")]
    assert not lvm.target().inspect().drifted


@pytest.mark.parametrize("reboots", [0, 1])
def test_wherever_a_push_dies_what_is_written_to_the_replica_then_is_kept(
    lvm: SimulatedLvmVolumes, base: Snapshot, reboots: int
) -> None:
    """Of a process, or of the whole machine."""
    published = 0
    for step in itertools.count(1):
        transfer = Transfer(lvm, base)
        try:
            with lvm.crash_at(step):
                staging = transfer.target.begin(transfer.request)
                transfer.stream(staging)
                transfer.target.commit(staging, transfer.digest)
                break
        except CrashError:
            for _ in range(1 + reboots):
                lvm.reboot()
        lvm.tamper(WRITTEN_AT, WRITTEN)
        written = lvm.read_replica()
        found = lvm.target().inspect()
        assert found.drifted
        assert lvm.read_replica() == written
        published += found.snapshots[-1].id == transfer.new.id
        base, _ = adopt(lvm)
        lvm.write_live(0, b"%d" % step)
    assert published > 1, "no crash came between the commit point and the end"


def test_a_replica_whose_tags_were_taken_away_is_not_ours_to_merge_into(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    commit_and_die(lvm, base)
    copy = lvm.replica.volumes["copy"]
    copy.read_only, copy.tags = False, frozenset()
    write(lvm)
    assert not lvm.target().inspect().owned
    assert is_kept(lvm)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("read_only", [False, True])
def test_where_nothing_was_written_a_crash_is_made_up_for(
    lvm: SimulatedLvmVolumes, base: Snapshot, *, opened: bool, read_only: bool
) -> None:
    transfer = commit_and_die(lvm, base)
    copy = lvm.replica.volumes["copy"]
    copy.read_only, copy.opened = read_only, int(opened)
    if opened and not read_only:
        with pytest.raises(VolumeError, match="in use"):
            lvm.target().inspect()
        assert not copy.read_only
    else:
        lvm.target().inspect()
    copy.opened = 0
    assert lvm.target().inspect().snapshots[-1].id == transfer.new.id
    assert lvm.read_replica() == transfer.content


def test_without_the_base_nothing_is_proven(lvm: SimulatedLvmVolumes, base: Snapshot) -> None:
    commit_and_die(lvm, base)
    name = next(one for one in lvm.replica.volumes if one.startswith("br_g_") and "_1_" in one)
    del lvm.replica.volumes[name]
    before = lvm.read_replica()
    assert lvm.target().inspect().drifted
    assert lvm.read_replica() == before


def test_a_full_transfer_overwrites_what_is_there(lvm: SimulatedLvmVolumes, base: Snapshot) -> None:
    del base
    lvm.tamper(WRITTEN_AT, WRITTEN)
    transfer = commit_and_die(lvm, None, mode="full")
    lvm.target().inspect()
    assert lvm.read_replica() == transfer.content


def test_a_replica_that_was_deactivated_while_a_merge_waits_is_activated(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    """LVM merges when it activates it; a reload of what is not active does nothing."""
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    copy = lvm.replica.volumes["copy"]
    copy.opened = 1
    committed = transfer.finish(staging)
    copy.opened, copy.active = 0, False
    assert lvm.target().inspect().snapshots[-1].id == committed.id
    assert lvm.read_replica() == transfer.content
    lvm.write_live(0, b"three")
    push(lvm, committed)


def test_a_replica_written_to_while_a_merge_waits_is_told_of(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    """It was mounted read-only at the commit; LVM merges at its next activation, whoever asks."""
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    copy = lvm.replica.volumes["copy"]
    copy.opened = 1
    transfer.target.commit(staging, transfer.digest)
    copy.read_only = False
    write(lvm)
    copy.opened = 0
    with pytest.raises(VolumeError, match="was made writable while snapshot #2 waits") as caught:
        lvm.target().inspect()
    assert is_kept(lvm)
    assert "lvchange --refresh vgb/copy" in str(caught.value)
    copy.active = False
    with pytest.raises(VolumeError, match="lvchange -ay vgb/copy"):
        lvm.target().inspect()
    assert is_kept(lvm)
    copy.active = True
    lvm.replica.finish_merges(copy)
    lvm.target().inspect()
    assert lvm.read_replica() == transfer.content


def adopting(lvm: SimulatedLvmVolumes) -> tuple[Transfer, Staging]:
    transfer = Transfer(lvm, None, mode="adopt")
    plain = dataclasses.replace(transfer.request, plan=None, new_chunks=0)
    staging = transfer.target.begin(plain)
    transfer.plan = transfer.aligned([Extent(0, transfer.new.size_bytes)])
    chunks = count_chunks(transfer.plan, transfer.replica.space.chunk_bytes)
    staging.set_plan(summarize(transfer.plan), chunks)
    transfer.stream(staging)
    return transfer, staging


def test_a_volume_opened_during_its_adoption_stays_as_it_is(lvm: SimulatedLvmVolumes) -> None:
    lvm.make_foreign(b"\x05" * len(lvm.read_live()))
    transfer, staging = adopting(lvm)
    copy = lvm.replica.volumes["copy"]
    copy.opened = 1
    write(lvm)
    with pytest.raises(VolumeError, match="in use"):
        transfer.target.commit(staging, transfer.digest)
    assert is_kept(lvm)
    assert not copy.read_only
    assert not copy.tags
    assert not [one for one in lvm.replica.volumes if one.startswith("br_g_")]
    copy.opened = 0
    transfer.target.commit(staging, transfer.digest)
    assert lvm.read_replica() == transfer.content


def test_a_replica_opened_during_a_transfer_is_refused_and_the_transfer_resumes(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    with lvm.in_use(), pytest.raises(VolumeError, match="in use"):
        transfer.target.commit(staging, transfer.digest)
    staging.close()
    resumed = lvm.target().begin(transfer.request)
    assert resumed.info.identity == staging.info.identity
    transfer.target.commit(resumed, transfer.digest)
    assert lvm.read_replica() == transfer.content


def test_a_replica_that_others_depend_on_is_refused_before_data_flows(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    """LVM merges nothing into the origin of a thick snapshot."""
    lvm.add_dependent("replica", "copy")
    before = set(lvm.replica.volumes)
    transfer = Transfer(lvm, base)
    with pytest.raises(VolumeError, match="vgb/theirs shows what the replica holds"):
        transfer.target.begin(transfer.request)
    assert set(lvm.replica.volumes) == before
    lvm.replica.external_lvs.clear()
    transfer.run()
    assert lvm.read_replica() == transfer.content


def test_one_that_comes_to_be_depended_on_is_refused_before_the_commit(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    lvm.add_dependent("replica", "copy")
    with pytest.raises(VolumeError, match="vgb/theirs shows"):
        transfer.target.commit(staging, transfer.digest)
    staging.close()
    lvm.replica.external_lvs.clear()
    found = lvm.target().inspect()
    assert [one.id for one in found.snapshots] == [base.id]
    assert found.staging is not None


def test_after_a_commit_a_volume_that_depends_on_the_replica_is_named(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    transfer = commit_and_die(lvm, base)
    lvm.add_dependent("replica", "copy")
    with pytest.raises(VolumeError, match="vgb/theirs shows what the replica holds"):
        lvm.target().inspect()
    lvm.replica.external_lvs.clear()
    assert lvm.target().inspect().snapshots[-1].id == transfer.new.id
    assert lvm.read_replica() == transfer.content


def test_what_is_written_between_the_proof_and_the_merge_is_kept(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    class Promoted(SimulatedRunner):
        def run(self, argv: Sequence[str]) -> CommandResult:
            result = super().run(argv)
            if argv[0] == "lvcreate" and "-pr" in argv:
                lvm.tamper(WRITTEN_AT, WRITTEN)
            return result

    transfer = Transfer(lvm, base)
    transfer.target = LvmTarget(NAME, lvm.settings, Promoted([lvm.replica]))
    transfer.run()
    assert is_kept(lvm)
    assert lvm.target().inspect().drifted


def test_a_replica_that_stopped_being_ours_during_a_transfer_keeps_what_was_written(
    lvm: SimulatedLvmVolumes, base: Snapshot
) -> None:
    """It is no replica by its tags, so nothing was proven of it before the commit."""
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    write(lvm)
    lvm.replica.volumes["copy"].tags = frozenset()
    transfer.target.commit(staging, transfer.digest)
    assert is_kept(lvm)


def merge_his_own(lvm: SimulatedLvmVolumes) -> None:
    """Let somebody take a snapshot of the replica, write, and go back: P30 on real LVM."""
    copy = lvm.replica.volumes["copy"]
    before = lvm.replica.snapshot(copy, "before")
    lvm.tamper(WRITTEN_AT, WRITTEN)
    before.merge_into = copy
    lvm.replica.finish_merges(copy)
    copy.read_only = True


def test_a_transfer_that_cannot_be_merged_any_more_starts_over(
    lvm: SimulatedLvmVolumes, base: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    staging.close()
    merge_his_own(lvm)
    with caplog.at_level(logging.WARNING):
        found = lvm.target().inspect()
    assert "it starts over" in caplog.text
    assert found.staging is None
    assert not found.drifted
    transfer.target = lvm.target()
    assert transfer.target.begin(transfer.request).info.identity != staging.info.identity
    lvm.replica.close_all()
    push(lvm, base)


def test_a_commit_that_cannot_be_merged_any_more_stays_beside_the_replica(
    lvm: SimulatedLvmVolumes, base: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = commit_and_die(lvm, base)
    merge_his_own(lvm)
    before = lvm.read_replica()
    with caplog.at_level(logging.WARNING):
        found = lvm.target().inspect()
    assert "the snapshot is kept beside it" in caplog.text
    assert [one.id for one in found.snapshots] == [base.id, transfer.new.id]
    assert found.drifted
    assert lvm.read_replica() == before
    with pytest.raises(DivergedError):
        push(lvm, transfer.source.mark_committed(transfer.new))
    adopt(lvm)
    assert lvm.read_replica() == lvm.read_live()
    assert not lvm.target().inspect().drifted


def test_what_cannot_be_merged_is_not_committed(lvm: SimulatedLvmVolumes, base: Snapshot) -> None:
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    merge_his_own(lvm)
    with pytest.raises(StorageError, match="no snapshot of the replica any more"):
        transfer.target.commit(staging, transfer.digest)
    staging.close()
    assert [one.id for one in lvm.target().inspect().snapshots] == [base.id]
    push(lvm, base)
