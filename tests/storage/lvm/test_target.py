"""The replica: foreign ones are left alone, room is found first, the newest is never removed."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from blockrep.errors import (
    ConfigurationError,
    DivergedError,
    InternalError,
    NoSpaceError,
    StorageError,
    VolumeError,
)
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm.runner import OutcomeUnknownError
from blockrep.storage.lvm.target import LvmTarget
from storage.lvm_simulation import SimulatedGroup
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import Transfer, adopt, push


def pushes(lvm: SimulatedLvmVolumes, count: int) -> list[Snapshot]:
    made: list[Snapshot] = []
    for number in range(count):
        lvm.write_live(number * lvm.unit_bytes, b"version %d" % number)
        made.append(push(lvm, made[-1] if made else None))
    return made


def test_pruning_keeps_at_least_the_newest(lvm: SimulatedLvmVolumes) -> None:
    made = pushes(lvm, 4)
    for keep in (2, 1, 0, -5):
        lvm.target().prune(keep, ())
    left = lvm.target().inspect().snapshots
    assert [one.id for one in left] == [made[-1].id]


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_snapshot_that_another_volume_needs_is_not_pruned(
    lvm: SimulatedLvmVolumes, caplog: pytest.LogCaptureFixture, *, after_commit: bool
) -> None:
    """I7: LVM would remove that volume with it, unasked."""
    made = pushes(lvm, 3)
    target = lvm.target()
    oldest, *_ = target.inspect().snapshots
    lvm.add_dependent("replica", oldest.name)
    if after_commit:
        lvm.write_live(0, b"next")
        transfer = Transfer(lvm, made[-1])
        transfer.run()
        target = transfer.target
    with caplog.at_level(logging.WARNING):
        removed = target.prune(1, ())
    assert [one.id for one in removed] == [one.id for one in made[1 : 3 if after_commit else 2]]
    assert f"vgb/{oldest.name} is kept: LVM would remove vgb/theirs with it" in caplog.text
    assert lvm.replica.external_lvs
    lvm.replica.external_lvs.clear()
    assert [one.id for one in lvm.target().prune(1, ())] == [made[0].id]


def test_what_a_transfer_needs_is_not_pruned(lvm: SimulatedLvmVolumes) -> None:
    made = pushes(lvm, 3)
    lvm.write_live(0, b"next")
    transfer = Transfer(lvm, made[-1])
    staging = transfer.target.begin(transfer.request)
    staging.close()
    removed = lvm.target().prune(1, (made[0].id,))
    assert [one.id for one in removed] == [made[1].id]


def test_a_pool_in_trouble_is_refused_before_anything(lvm: SimulatedLvmVolumes) -> None:
    pushes(lvm, 1)
    lvm.replica.needs_check = True
    with pytest.raises(VolumeError, match="needs a check"):
        lvm.target().inspect()


def test_a_full_pool_ends_a_transfer_at_begin(lvm: SimulatedLvmVolumes) -> None:
    base = pushes(lvm, 1)[0]
    lvm.write_live(0, b"x" * lvm.unit_bytes)
    lvm.replica.mode = "out_of_data_space"
    transfer = Transfer(lvm, base)
    with pytest.raises(NoSpaceError, match="is full"):
        transfer.target.begin(transfer.request)
    assert not [one for one in lvm.replica.volumes if one.startswith("br_t_")]


def test_room_that_a_stale_attempt_takes_is_freed_first(lvm: SimulatedLvmVolumes) -> None:
    base = pushes(lvm, 1)[0]
    lvm.write_live(0, b"y" * 20 * lvm.unit_bytes)
    abandoned = Transfer(lvm, base)
    staging = abandoned.target.begin(abandoned.request)
    abandoned.stream(staging)
    staging.close()
    lvm.source().remove_snapshot(abandoned.new)
    used = len(lvm.replica.blocks())
    lvm.replica.total_chunks = int((used + 1) / 0.95) + 1
    successor = Transfer(lvm, base)
    successor.run()
    assert lvm.read_replica() == successor.content


@pytest.mark.parametrize("first", [False, True])
def test_a_transfer_resumes_only_where_there_is_room_for_the_rest(
    lvm: SimulatedLvmVolumes, *, first: bool
) -> None:
    """I8: others may have taken it meanwhile; what is there already needs none."""
    base = None if first else pushes(lvm, 1)[0]
    lvm.write_live(0, b"y" * 20 * lvm.unit_bytes)
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=2)
    staging.close()
    name = next(one for one in lvm.replica.volumes if one.startswith("br_t_"))
    lvm.replica.sync(lvm.replica.volumes[name])
    free = lvm.replica.total_chunks
    lvm.replica.total_chunks = len(lvm.replica.blocks()) + 10
    with pytest.raises(NoSpaceError, match="above its reserve"):
        lvm.target().begin(transfer.request)
    assert name in lvm.replica.volumes
    lvm.replica.total_chunks = free
    resumed = lvm.target().begin(transfer.request)
    assert resumed.info.identity == staging.info.identity
    transfer.stream(resumed)
    transfer.target.commit(resumed, transfer.digest)
    assert lvm.read_replica() == transfer.content


def test_where_a_new_replica_goes(lvm: SimulatedLvmVolumes) -> None:
    settings = dataclasses.replace(lvm.settings, pool="vgb/other")
    target = LvmTarget(VolumeName(vg="vgb", lv="copy"), settings, lvm.runner())
    with pytest.raises(ConfigurationError, match="there is no thin pool"):
        target.inspect()


def test_several_pools_are_not_chosen_from(lvm: SimulatedLvmVolumes) -> None:
    other = {"lv_name": "pool2", "lv_uuid": "x", "lv_size": "1048576", "lv_layout": "thin,pool"}
    lvm.replica.external_lvs.append(other)
    with pytest.raises(ConfigurationError, match="vgb/pool, vgb/pool2"):
        lvm.target().inspect()


def test_a_staging_volume_of_another_kind_is_a_defect(lvm: SimulatedLvmVolumes) -> None:
    with pytest.raises(InternalError):
        lvm.target().commit(object(), bytes(32))  # type: ignore[arg-type]


def test_a_staging_volume_that_is_gone_is_no_commit(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"x")
    transfer = Transfer(lvm, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    del lvm.replica.volumes[next(iter(lvm.replica.volumes))]
    with pytest.raises(StorageError, match="the staging volume is gone"):
        transfer.target.commit(staging, transfer.digest)


def test_a_replica_opened_before_the_merge_shows_it_when_closed(
    lvm: SimulatedLvmVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    base = pushes(lvm, 1)[0]
    before = lvm.read_replica()
    lvm.write_live(0, b"newer")
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    lvm.replica.volumes["copy"].opened = 1
    with caplog.at_level(logging.WARNING):
        good = transfer.target.commit(staging, transfer.digest)
    assert "shows its new content once it is closed" in caplog.text
    assert lvm.read_replica() == before
    with pytest.raises(VolumeError, match="in use"):
        lvm.target().begin(transfer.request)
    lvm.replica.volumes["copy"].opened = 0
    lvm.target().inspect()
    assert lvm.read_replica() == transfer.content
    assert lvm.target().inspect().snapshots[-1].id == good.id


def test_a_thick_volume_is_refused(lvm: SimulatedLvmVolumes) -> None:
    lvm.replica.external_lvs.append(
        {"lv_name": "copy", "lv_uuid": "t", "lv_size": "4096", "lv_layout": "linear"}
    )
    with pytest.raises(VolumeError, match="is not a thin volume"):
        lvm.target().inspect()


def test_a_replica_that_somebody_shrank_has_drifted(lvm: SimulatedLvmVolumes) -> None:
    """Its mappings outlive that, and say that nothing was written; its end is lost (I2)."""
    lvm.write_live(0, b"\xaa" * len(lvm.read_live()))
    base = push(lvm, None)
    lvm.replica.volumes["copy"].size_bytes -= 512 * 1024
    lvm.write_live(0, b"x" * 4096)
    transfer = Transfer(lvm, base)
    assert transfer.replica.drifted
    with pytest.raises(DivergedError, match="written to"):
        transfer.target.begin(transfer.request)


def test_what_a_refusal_for_room_removed_is_told(lvm: SimulatedLvmVolumes) -> None:
    base = pushes(lvm, 1)[0]
    lvm.write_live(0, b"y" * 20 * lvm.unit_bytes)
    abandoned = Transfer(lvm, base)
    staging = abandoned.target.begin(abandoned.request)
    abandoned.stream(staging, most=1)
    staging.close()
    again = Transfer(lvm, base)
    lvm.replica.total_chunks = len(lvm.replica.blocks())
    with pytest.raises(NoSpaceError) as caught:
        again.target.begin(again.request)
    assert "unfinished transfer was removed" in str(caught.value.safe)
    assert lvm.target().inspect().staging is None


def test_a_push_takes_few_commands(lvm: SimulatedLvmVolumes) -> None:
    """Each of LVM's own takes a tenth of a second, and holds the group's lock meanwhile."""
    bases = pushes(lvm, 3)
    lvm.write_live(0, b"next")
    transfer = Transfer(lvm, bases[-1])
    transfer.run()
    transfer.target.prune(3, ())
    target_costs = transfer.target.take_costs()
    counts = {name: count for name, count, _ in target_costs.commands}
    lvm_commands = sum(count for name, count in counts.items() if name.startswith("lv"))
    assert counts["lvs"] <= 7
    assert lvm_commands <= 12
    assert target_costs.metadata_snapshot_seconds >= 0
    assert transfer.target.take_costs().command_count == 0


def test_a_good_snapshot_that_the_pool_was_not_told_of_is_no_commit(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I2: LVM has noted it, and its command failed or hangs: who pushes must not hear of it."""
    base = pushes(lvm, 1)[0]
    lvm.write_live(0, b"next")
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)

    def hang(group: SimulatedGroup) -> None:
        if group.told_transaction < group.transaction:
            patch.undo()
            raise OutcomeUnknownError("lvcreate did not end in time")

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedGroup, "make", hang)
        with pytest.raises(StorageError, match="is not there"):
            transfer.target.commit(staging, b"d" * 32)
    assert [one.id for one in lvm.target().inspect().snapshots] == [base.id]


def test_a_clone_of_the_group_does_not_resume_with_the_cursor_of_the_original(
    lvm: SimulatedLvmVolumes,
) -> None:
    """Vgimportclone keeps the uuids of volumes: what became durable since is not in the clone."""
    lvm.write_live(0, b"content" * lvm.unit_bytes)
    transfer = Transfer(lvm, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=4)
    staging.close()
    resumed = lvm.target().inspect().staging
    assert resumed is not None
    assert resumed.cursor_bytes
    lvm.replica.vg_uuid = "another-uuid"
    copied = lvm.target().inspect().staging
    assert copied is not None
    assert not copied.cursor_bytes


@pytest.mark.parametrize("versions", [1, 2])
def test_a_base_that_is_removed_during_a_transfer_is_noticed_before_the_commit(
    lvm: SimulatedLvmVolumes, versions: int
) -> None:
    """Without it nothing proves that the replica is what the transfer started from."""
    base = pushes(lvm, versions)[-1]
    lvm.write_live(0, b"next")
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    good = next(name for name in lvm.replica.volumes if name.endswith(f"{versions}_{base.id[:8]}"))
    del lvm.replica.volumes[good]
    with pytest.raises(DivergedError, match="is not the replica's newest good snapshot"):
        transfer.target.commit(staging, transfer.digest)
    staging.close()
    made = [one for one in lvm.replica.volumes if one.endswith(transfer.new.id[:8])]
    assert [one[:5] for one in made] == ["br_t_"]


def test_a_good_snapshot_that_somebody_made_writable_is_left_alone(
    lvm: SimulatedLvmVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    """He may run something on it, under a name of his own."""
    made = pushes(lvm, 3)
    name = next(one for one in lvm.replica.volumes if one.endswith(made[0].id[:8]))
    his = lvm.replica.volumes["his"] = lvm.replica.volumes.pop(name)
    his.name, his.read_only, his.skipped, his.active = "his", False, False, True
    target = lvm.target()
    with caplog.at_level(logging.WARNING):
        found = target.inspect()
        target.inspect()
    assert [one.id for one in found.snapshots] == [made[1].id, made[2].id]
    assert caplog.text.count("vgb/his: the snapshot was made writable") == 1
    assert "lvchange --deltag blockrep vgb/his" in caplog.text
    assert not found.drifted
    assert [one.id for one in target.prune(1, ())] == [made[1].id]
    assert lvm.replica.volumes["his"] is his
    assert his.active
    with pytest.raises(VolumeError, match="no good snapshot"):
        target.open_snapshot(made[0].id)


def test_the_newest_one_made_writable_proves_nothing(lvm: SimulatedLvmVolumes) -> None:
    made = pushes(lvm, 2)
    name = next(one for one in lvm.replica.volumes if one.endswith(made[1].id[:8]))
    lvm.replica.volumes[name].read_only = False
    found = lvm.target().inspect()
    assert [one.id for one in found.snapshots] == [made[0].id]
    assert found.drifted
    with pytest.raises(DivergedError, match="is not the replica's newest good snapshot"):
        Transfer(lvm, made[1]).run()
    adopt(lvm)
    assert lvm.read_replica() == lvm.read_live()
    # Should he make it read-only again, it is not the newest.
    lvm.replica.volumes[name].read_only = True
    found = lvm.target().inspect()
    assert [one.id for one in found.snapshots[:2]] == [made[0].id, made[1].id]
    assert len(found.snapshots) == 3
    assert not found.drifted


def test_the_id_of_one_made_writable_is_not_used_again(lvm: SimulatedLvmVolumes) -> None:
    """What arrived would count as committed, and be removed."""
    pushes(lvm, 1)
    lvm.write_live(0, b"next")
    transfer = Transfer(lvm, None, mode="full")
    transfer.run()
    name = next(one for one in lvm.replica.volumes if one.endswith(transfer.new.id[:8]))
    lvm.replica.volumes[name].read_only = False
    with pytest.raises(VolumeError, match="made writable"):
        lvm.target().begin(transfer.request)
