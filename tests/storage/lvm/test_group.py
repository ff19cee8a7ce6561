"""One look tells the whole group; a failed change is an error; a removal is proven by a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from blockrep.errors import NoSpaceError, StorageError, UnsupportedHostError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.storage.lvm import group as module
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.runner import CommandResult
from storage.lvm.builders import POOL, volume
from storage.lvm_simulation import Lv, SimulatedRunner
from storage.simulated_lvm_volumes import SimulatedLvmVolumes

NAME = VolumeName(vg="volg", lv="thin_volume")


def test_a_thin_volume_and_its_pool() -> None:
    state = GroupState((volume(), POOL))
    assert state.thin_volume(NAME) == (volume(), POOL)
    assert state.with_uuid("pool-uuid") == POOL
    assert state.with_uuid("none") is None


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ((POOL,), "there is no such logical volume"),
        ((volume(kind="other"), POOL), "is not a thin volume"),
        ((volume(kind="pool"), POOL), "is a thin pool"),
        ((volume(origin="thick"), volume(name="thick", kind="other"), POOL), "external origin"),
    ],
)
def test_what_cannot_be_replicated(volumes: tuple[object, ...], words: str) -> None:
    with pytest.raises(VolumeError, match=words):
        GroupState(volumes).thin_volume(NAME)  # type: ignore[arg-type]


def test_an_unknown_group(lvm: SimulatedLvmVolumes) -> None:
    with pytest.raises(VolumeError, match="there is no such volume group"):
        VolumeGroup("none", lvm.settings, lvm.runner()).read()


def test_it_is_for_root(lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UnsupportedHostError("LVM volumes can only be used by root")

    monkeypatch.setattr(module, "require_root", refuse)
    with pytest.raises(UnsupportedHostError):
        VolumeGroup("vga", lvm.settings, lvm.runner()).read()


class Failing(SimulatedRunner):
    """Says of every change what LVM says of a pool without room."""

    def run(self, argv: Sequence[str]) -> CommandResult:
        if argv[0] in {"lvs", "dmsetup"}:
            return super().run(argv)
        text = (
            "  Cannot create new thin volume, free space in thin pool vga/pool reached threshold."
        )
        return CommandResult(tuple(argv), 5, b"", text)


def test_a_pool_without_room_is_told_as_that(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vga", lvm.settings, Failing([lvm.origin]))
    with pytest.raises(NoSpaceError, match="reached threshold"):
        group.change(["lvcreate", "-s", "-n", "x", "vga/live"])


def add_good(lvm: SimulatedLvmVolumes) -> Lv:
    lv = lvm.origin.add("br_g_1", 4096, ["blockrep", "blockrep.role=good"])
    lv.read_only = True
    return lv


def test_only_ours_is_removed_and_only_as_it_was(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    lvm.origin.add("plain", 4096)
    add_good(lvm)
    plain, ours = (group.read().find(name) for name in ("plain", "br_g_1"))
    assert plain is not None
    assert ours is not None
    with pytest.raises(VolumeError, match="is not blockrep's"):
        group.remove(plain)
    # Somebody removes it and makes another one of the same name: LVM then matches nothing.
    del lvm.origin.volumes["br_g_1"]
    add_good(lvm)
    group.remove(ours)
    assert "br_g_1" in lvm.origin.volumes
    # Somebody takes our tag away.
    again = group.read().find("br_g_1")
    assert again is not None
    lvm.origin.volumes["br_g_1"].tags = frozenset()
    with pytest.raises(StorageError, match="was not removed: its tags or its uuid"):
        group.remove(again)
    lvm.origin.volumes["br_g_1"].tags |= {"blockrep", "blockrep.role=good"}
    lvm.origin.volumes["br_g_1"].opened = 1
    with pytest.raises(StorageError, match="in use"):
        group.remove(again)
    lvm.origin.volumes["br_g_1"].opened = 0
    group.remove(again)
    assert "br_g_1" not in lvm.origin.volumes


def test_what_was_made_writable_is_not_removed(lvm: SimulatedLvmVolumes) -> None:
    """I7: whoever did that uses it, under another name perhaps; also if it was done just now."""
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    lv = add_good(lvm)
    looked_at = group.read().find("br_g_1")
    assert looked_at is not None
    lv.read_only = False
    for state in (None, group.read()):
        with pytest.raises(VolumeError, match=r"made writable.*--deltag blockrep vga/br_g"):
            group.remove(looked_at, state)
    assert "br_g_1" in lvm.origin.volumes


def test_what_depends_on_a_volume() -> None:
    origin = volume(name="origin", uuid="O")
    thick = volume(name="thick", uuid="K", kind="other", pool="", pool_uuid="", origin="origin")
    elsewhere = volume(name="clone", uuid="C", pool="p2", pool_uuid="P2", origin="origin")
    snapshot = volume(name="snapshot", uuid="S", origin="origin")
    another = volume(name="another", uuid="A", kind="other", origin="else")
    state = GroupState((origin, thick, elsewhere, snapshot, another, POOL))
    assert state.dependents(origin) == [thick, elsewhere]
    assert state.dependents(snapshot) == []


def test_what_another_volume_needs_is_not_removed(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    add_good(lvm)
    ours = group.read().find("br_g_1")
    assert ours is not None
    before = group.read()
    lvm.add_dependent("origin", "br_g_1")
    for state in (None, group.read()):
        with pytest.raises(VolumeError, match="LVM would remove vga/theirs with it"):
            group.remove(ours, state)
    assert "br_g_1" in lvm.origin.volumes
    # So it is done without that look.
    group.remove(ours, before)
    assert not lvm.origin.external_lvs


def test_an_inactive_volume_maps_at_most_its_size(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    live = group.read().find("live")
    assert live is not None
    lvm.write_live(0, b"x")
    assert group.mapped_bytes(live) == lvm.origin.chunk_bytes
    lvm.origin.volumes["live"].active = False
    assert group.mapped_bytes(live) == live.size_bytes


def test_content_outside_of_the_pool_is_refused_wherever_it_comes_from() -> None:
    """Deltas do not know it: neither of another pool, nor what a snapshot has inherited."""
    other = replace(POOL, name="pool2", uuid="pool2-uuid")
    golden = volume(name="golden", uuid="E", read_only=True, active=False)
    cloned = volume(name="vm", uuid="V", pool="pool2", pool_uuid=other.uuid, origin="golden")
    thick = replace(golden, kind="other", pool="", pool_uuid="", thin_id=-1)
    based = volume(name="vm", uuid="V", origin="golden")
    inherits = volume(name="clone", uuid="S", origin="vm")
    for state, name in (
        (GroupState((POOL, other, golden, cloned)), "vm"),
        (GroupState((POOL, thick, based)), "vm"),
        (GroupState((POOL, thick, based, inherits)), "clone"),
    ):
        with pytest.raises(VolumeError, match=r"external origin \(golden\)"):
            state.thin_volume(VolumeName(vg="volg", lv=name))
    snapshot = volume(name="snapshot", uuid="S", origin="vm")
    plain = volume(name="vm", uuid="V")
    assert GroupState((POOL, plain, snapshot)).pool_of(snapshot) == POOL
