"""What a crash left is put in order from the state alone, step by step, and it ends (I3, I4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blockrep.errors import VolumeError
from blockrep.storage.lvm.group import GroupState
from blockrep.storage.lvm.recovery import Action, next_step, view_target
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import (
    MARK,
    REPLICA_TAGS,
    StagingMark,
    good_tags,
    read_staging,
    replica_tag,
    staging_tags,
)
from storage.lvm.builders import POOL, request, volume

REPLICA = volume(name="copy", uuid="R", tags=REPLICA_TAGS, read_only=True)


def staging(of: str = "R", **values: object) -> LogicalVolume:
    ready = bool(values.pop("ready", True))
    sequence = int(str(values.pop("sequence", 2)))
    plain = values.pop("plan", True)
    wanted = request(sequence=sequence) if plain else request(sequence=sequence, plan=None)
    tags = staging_tags(wanted, of, "pool-uuid", "copy", ready=ready)
    plainly = {"name": f"br_t_{sequence}", "uuid": f"T{sequence}", "tags": tags}
    return volume(**{**plainly, "origin": "copy" if of else "", **values})


def good(of: str = "R", order: int = 1, uuid: str = "G") -> LogicalVolume:
    mark = read_staging(staging(of))
    assert mark is not None
    tags = good_tags(mark, b"d" * 32, order)
    return volume(name=f"br_g_{order}", uuid=uuid, tags=tags, read_only=True)


def mark_of(number: int) -> StagingMark:
    tags = staging_tags(request(snapshot_id=f"{number:032}"), "R", "P", "copy", ready=True)
    mark = read_staging(volume(tags=tags))
    assert mark is not None
    return mark


def step(*volumes: LogicalVolume) -> tuple[Action, str] | None:
    found = next_step(view_target(GroupState((*volumes, POOL)), "copy"))
    return None if found is None else (found.action, found.volume.uuid)


def test_order_needs_nothing() -> None:
    assert step() is None
    assert step(REPLICA) is None
    assert step(REPLICA, good()) is None
    assert step(REPLICA, good(), volume(name="other", uuid="X")) is None


def test_an_unfinished_transfer_waits_for_its_sender() -> None:
    assert step(REPLICA, staging()) is None
    assert step(staging(of="")) is None


def test_what_was_committed_waits_while_another_volume_has_the_name() -> None:
    """It is no unfinished transfer, which an adoption of that volume would remove."""
    waiting = staging(of="")
    committed = good(of="T2")
    foreign = volume(name="copy", uuid="F")
    view = view_target(GroupState((foreign, waiting, committed, POOL)), "copy")
    assert view.staging is None
    assert next_step(view) is None


def test_a_staging_volume_of_another_transfer_with_a_good_id_is_unfinished() -> None:
    assert step(REPLICA, staging(sequence=1), good()) is None


def test_what_nobody_can_resume_is_removed() -> None:
    assert step(REPLICA, staging(ready=False)) == (Action.REMOVE, "T2")
    assert step(REPLICA, staging(plan=False)) == (Action.REMOVE, "T2")
    assert step(REPLICA, staging(), staging(sequence=1)) == (Action.REMOVE, "T1")


def test_committed_becomes_visible() -> None:
    assert step(REPLICA, staging(), good()) == (Action.MERGE, "T2")
    assert step(staging(of=""), good(of="T2")) == (Action.BECOME_REPLICA, "T2")
    foreign = volume(name="copy", uuid="R")
    assert step(foreign, staging(), good()) == (Action.CLAIM, "R")
    writable = volume(name="copy", uuid="R", tags=REPLICA_TAGS)
    assert step(writable, staging(), good()) == (Action.CLAIM, "R")


def test_what_lvm_cannot_merge_any_more_is_removed() -> None:
    """Somebody merged a snapshot of his own into the replica: LVM took the origin of ours away."""
    for origin in ("", "another"):
        assert step(REPLICA, staging(origin=origin)) == (Action.REMOVE, "T2")
        assert step(REPLICA, staging(origin=origin), good()) == (Action.REMOVE, "T2")
    merging = staging(origin="copy", merging=True)
    assert step(REPLICA, merging, good()) == (Action.FINISH_MERGE, "R")
    promoted = volume(name="copy", uuid="R", tags=REPLICA_TAGS, open=True)
    assert step(promoted, staging(origin=""), good()) == (Action.REMOVE, "T2")


def test_a_promoted_replica_in_use_is_left_alone() -> None:
    promoted = volume(name="copy", uuid="R", tags=REPLICA_TAGS, open=True)
    assert step(promoted, staging(), good()) is None
    view = view_target(GroupState((promoted, staging(), good(), POOL)), "copy")
    assert view.unpublished is not None
    assert not view.merge_pending
    foreign = volume(name="copy", uuid="R", open=True)
    assert step(foreign, staging(), good()) is None
    mounted_read_only = volume(name="copy", uuid="R", tags=REPLICA_TAGS, read_only=True, open=True)
    assert step(mounted_read_only, staging(), good()) == (Action.MERGE, "T2")


def test_what_was_overtaken_is_not_merged_any_more() -> None:
    tags = good_tags(mark_of(9), b"d" * 32, 2)
    newer = volume(name="br_g_2", uuid="G2", tags=tags, read_only=True)
    assert step(REPLICA, staging(), good(), newer) == (Action.REMOVE, "T2")


def test_a_replica_without_its_name_gets_it() -> None:
    tags = (*REPLICA_TAGS, replica_tag("copy"))
    unnamed = volume(name="br_t_9", uuid="R", tags=tags, read_only=True)
    assert step(unnamed, good()) == (Action.NAME, "R")
    renamed_by_hand = volume(name="old_copy", uuid="R", tags=tags, read_only=True)
    assert step(renamed_by_hand, good()) is None


def test_an_open_replica_is_waited_for() -> None:
    merging = staging(merging=True)
    assert step(REPLICA, merging, good()) == (Action.FINISH_MERGE, "R")
    opened = volume(name="copy", uuid="R", tags=REPLICA_TAGS, read_only=True, open=True)
    assert step(opened, merging, good()) is None
    assert view_target(GroupState((opened, merging, POOL)), "copy").merge_pending


def test_a_name_that_somebody_took_is_left_to_him() -> None:
    foreign = volume(name="copy", uuid="F")
    assert step(foreign, staging(of=""), good(of="T2")) is None


def test_only_its_own_snapshots_belong_to_a_target() -> None:
    others = good(of="another", order=9, uuid="X")
    forged = volume(name="br_g_7", uuid="Y", tags=("blockrep.role=good",))
    view = view_target(GroupState((REPLICA, good(), others, forged, POOL)), "copy")
    assert [mark.volume.uuid for mark in view.goods] == ["G"]
    assert view.newest is not None
    assert view.owned


def test_snapshots_are_ordered_by_commit() -> None:
    state = GroupState((REPLICA, good(order=10, uuid="new"), good(order=9, uuid="old"), POOL))
    assert [mark.volume.uuid for mark in view_target(state, "copy").goods] == ["old", "new"]


def test_what_somebody_made_writable_is_no_good_snapshot() -> None:
    his = replace(good(), read_only=False)
    view = view_target(GroupState((REPLICA, staging(), his, POOL)), "copy")
    assert view.goods == ()
    assert [mark.volume.uuid for mark in view.estranged] == ["G"]
    # Nobody resumes what was committed once, and nothing proves what the replica should hold.
    assert view.staging is None
    assert step(REPLICA, staging(), his) == (Action.REMOVE, "T2")


@pytest.mark.parametrize("role", ["good", "staging", "source"])
def test_our_own_snapshots_are_no_targets(role: str) -> None:
    ours = volume(name="copy", uuid="R", tags=(MARK, f"blockrep.role={role}"))
    state = GroupState((ours, POOL))
    with pytest.raises(VolumeError):
        view_target(state, "copy")


def test_a_thick_volume_is_no_target() -> None:
    with pytest.raises(VolumeError, match="is not a thin volume"):
        view_target(GroupState((volume(name="copy", kind="other"), POOL)), "copy")
