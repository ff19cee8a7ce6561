"""The source: what is not the same volume in the same pool is another one (trap 5)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import pytest

from blockrep.errors import NoSpaceError, StorageError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.runner import CommandResult, OutcomeUnknownError
from blockrep.storage.lvm.source import LvmSource
from storage.lvm_simulation import SimulatedRunner
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import LINEAGE, take_snapshot


def test_a_recreated_volume_has_none_of_its_predecessors_snapshots(
    lvm: SimulatedLvmVolumes,
) -> None:
    old = take_snapshot(lvm.source())
    del lvm.origin.volumes["live"]
    lvm.origin.add("live", 1 << 20)
    source = lvm.source()
    assert source.snapshots() == []
    with pytest.raises(VolumeError, match="is gone"):
        source.open_snapshot(old)
    with pytest.raises(VolumeError, match="is gone"):
        list(source.delta(old, None))


def test_a_pool_that_was_replaced_has_none_either(lvm: SimulatedLvmVolumes) -> None:
    take_snapshot(lvm.source())
    snapshot = next(one for name, one in lvm.origin.volumes.items() if name.startswith("br_s_"))
    snapshot.tags = frozenset(
        f"blockrep.pool={'0' * 32}" if tag.startswith("blockrep.pool=") else tag
        for tag in snapshot.tags
    )
    assert lvm.source().snapshots() == []


def test_a_snapshot_carries_everything_from_its_first_moment(lvm: SimulatedLvmVolumes) -> None:
    runner = lvm.runner()
    source = LvmSource(VolumeName(vg="vga", lv="live"), lvm.settings, runner)
    snapshot = source.create_snapshot(LINEAGE, "ab" * 16, 7, "tls://r:1/vg/lv", 1000)
    changes = [
        one.argv
        for one in runner.take_log()
        if one.argv[0].startswith("lv") and one.argv[0] != "lvs"
    ]
    assert [argv[0] for argv in changes] == ["lvcreate"]
    assert snapshot.target == "tls://r:1/vg/lv"
    assert not snapshot.committed
    made = lvm.origin.volumes[snapshot.name]
    assert made.read_only
    assert not made.active


class Unsure(SimulatedRunner):
    """Changes volumes, but never says so in time."""

    def run(self, argv: Sequence[str]) -> CommandResult:
        result = super().run(argv)
        if argv[0] in {"lvcreate", "lvchange"}:
            raise OutcomeUnknownError(f"{argv[0]} did not end in time")
        return result


def test_a_command_of_unknown_outcome_is_judged_by_the_state(lvm: SimulatedLvmVolumes) -> None:
    runner = Unsure([lvm.origin, lvm.replica])
    source = LvmSource(VolumeName(vg="vga", lv="live"), lvm.settings, runner)
    snapshot = take_snapshot(source)
    assert source.mark_committed(snapshot).committed
    assert lvm.source().snapshots()[0].committed


def test_one_that_did_nothing_is_an_error(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "create_snapshot", lambda *_, **__: ["lvchange", "vga/live"])
    runner = Unsure([lvm.origin, lvm.replica])
    with pytest.raises(OutcomeUnknownError):
        take_snapshot(LvmSource(VolumeName(vg="vga", lv="live"), lvm.settings, runner))


def test_a_snapshot_of_another_lineage_is_not_removed(lvm: SimulatedLvmVolumes) -> None:
    snapshot = take_snapshot(lvm.source())
    other = dataclasses.replace(snapshot, lineage="cd" * 16)
    with pytest.raises(VolumeError, match="another lineage"):
        lvm.source().remove_snapshot(other)
    assert lvm.source().snapshots() == [snapshot]


def test_a_pool_below_its_reserve_takes_no_snapshot(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.total_chunks = 20
    lvm.write_live(0, b"x" * 20 * lvm.unit_bytes)
    with pytest.raises(NoSpaceError, match="its reserve"):
        take_snapshot(lvm.source())
    assert lvm.source().snapshots() == []


@pytest.mark.parametrize(
    ("mode", "check", "words"), [("ro", False, "read-only"), ("rw", True, "needs a check")]
)
def test_a_pool_in_trouble_is_refused(
    lvm: SimulatedLvmVolumes, mode: str, check: bool, words: str
) -> None:
    lvm.origin.mode, lvm.origin.needs_check = mode, check
    with pytest.raises(VolumeError, match=words):
        lvm.source().describe()


def test_a_full_pool_can_still_be_looked_at(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.mode = "out_of_data_space"
    assert lvm.source().describe().kind == "lvm-thin"
    assert lvm.source().snapshots() == []


def test_a_pool_that_queues_when_full_is_warned_of(
    lvm: SimulatedLvmVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    lvm.origin.total_chunks = 60
    lvm.write_live(0, b"x" * 50 * lvm.unit_bytes)
    with caplog.at_level(logging.WARNING):
        take_snapshot(lvm.source())
    assert "vga/pool" in caplog.text


def test_a_staging_volume_is_no_source(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.volumes["live"].tags = frozenset({"blockrep", "blockrep.role=staging"})
    with pytest.raises(VolumeError, match="is the staging volume of a transfer"):
        lvm.source().describe()


def test_the_metadata_of_a_vanished_snapshot_is_no_delta(lvm: SimulatedLvmVolumes) -> None:
    base = take_snapshot(lvm.source())
    delta = lvm.source().delta(base, None)
    for name in [one for one in lvm.origin.volumes if one.startswith("br_s_")]:
        del lvm.origin.volumes[name]
    with pytest.raises(VolumeError, match="is gone"):
        list(delta)


def test_a_volume_that_is_replaced_during_the_comparison_is_noticed(
    lvm: SimulatedLvmVolumes,
) -> None:
    """Thin ids are used again: what thin_delta compared may have been another volume (I2)."""

    class Meddled(SimulatedRunner):
        def run(self, argv: Sequence[str]) -> CommandResult:
            if argv[0] == "thin_delta":
                del lvm.origin.volumes[base.name]
            return super().run(argv)

    base, new = take_snapshot(lvm.source(), 1), take_snapshot(lvm.source(), 2)
    name = VolumeName(vg="vga", lv="live")
    source = LvmSource(name, lvm.settings, Meddled([lvm.origin, lvm.replica]))
    with pytest.raises((VolumeError, StorageError)):
        list(source.delta(base, new))
    assert lvm.origin.held is None


def test_a_volume_that_takes_another_thin_id_during_the_comparison_is_noticed(
    lvm: SimulatedLvmVolumes,
) -> None:
    """So it is when somebody merges a snapshot into it: the uuid stays, the content does not."""

    class Meddled(SimulatedRunner):
        def run(self, argv: Sequence[str]) -> CommandResult:
            result = super().run(argv)
            if argv[0] == "thin_delta":
                lvm.origin.volumes["live"].thin_id += 1000
            return result

    base = take_snapshot(lvm.source())
    name = VolumeName(vg="vga", lv="live")
    source = LvmSource(name, lvm.settings, Meddled([lvm.origin, lvm.replica]))
    with pytest.raises(VolumeError, match="vga/live: was removed while it was compared"):
        list(source.delta(base, None))


def test_a_snapshot_that_another_volume_needs_is_not_removed(lvm: SimulatedLvmVolumes) -> None:
    """I7: somebody made a thick snapshot of it to look into it; LVM would remove that, too."""
    snapshot = take_snapshot(lvm.source())
    lvm.add_dependent("origin", snapshot.name)
    with pytest.raises(VolumeError, match="LVM would remove vga/theirs with it"):
        lvm.source().remove_snapshot(snapshot)
    assert lvm.source().snapshots() == [snapshot]
    assert lvm.origin.external_lvs


def test_a_push_takes_few_commands(lvm: SimulatedLvmVolumes) -> None:
    """Each of LVM's own takes a tenth of a second, and holds the group's lock meanwhile."""
    old = lvm.source().mark_committed(take_snapshot(lvm.source()))
    lvm.write_live(0, b"changed")
    source = lvm.source()
    source.describe()
    assert source.snapshots() == [old]
    new = take_snapshot(source, 2)
    assert list(source.delta(old, new))
    with source.open_snapshot(new) as reader:
        reader.read_into(0, memoryview(bytearray(4096)))
    new = source.mark_committed(new)
    source.remove_snapshot(old)
    costs = source.take_costs()
    counts = {name: count for name, count, _ in costs.commands}
    assert counts.pop("dmsetup") < 10
    assert counts == {"lvs": 6, "lvcreate": 1, "thin_delta": 1, "lvchange": 3, "lvremove": 1}
    assert lvm.source().snapshots() == [new]


def test_a_snapshot_that_somebody_made_writable_is_neither_compared_nor_sent(
    lvm: SimulatedLvmVolumes,
) -> None:
    """A page that equals it need not equal the target's base (I2)."""
    source = lvm.source()
    snapshot = take_snapshot(source)
    assert source.has_content(snapshot)
    lvm.origin.volumes[snapshot.name].read_only = False
    assert not lvm.source().has_content(snapshot)
    with pytest.raises(VolumeError, match="made writable"):
        lvm.source().open_snapshot(snapshot)
    for base, new in ((snapshot, None), (None, snapshot)):
        with pytest.raises(VolumeError, match="made writable"):
            list(lvm.source().delta(base, new))


def test_one_that_is_made_writable_while_it_is_compared_is_noticed(
    lvm: SimulatedLvmVolumes,
) -> None:
    class Meddled(SimulatedRunner):
        def run(self, argv: Sequence[str]) -> CommandResult:
            if argv[0] == "thin_delta":
                lvm.origin.volumes[base.name].read_only = False
            return super().run(argv)

    base = take_snapshot(lvm.source())
    name = VolumeName(vg="vga", lv="live")
    source = LvmSource(name, lvm.settings, Meddled([lvm.origin, lvm.replica]))
    with pytest.raises(VolumeError, match="made writable"):
        list(source.delta(base, None))


def test_a_snapshot_that_somebody_made_writable_is_left_alone(
    lvm: SimulatedLvmVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    """He may run something on it, under a name of his own."""
    old, new = take_snapshot(lvm.source(), 1), take_snapshot(lvm.source(), 2)
    source = lvm.source()
    assert source.snapshots() == [old, new]
    his = lvm.origin.volumes["his"] = lvm.origin.volumes.pop(old.name)
    his.name, his.read_only, his.skipped, his.active = "his", False, False, True
    with caplog.at_level(logging.WARNING):
        source.remove_snapshot(old)  # it was ours when it was looked at
        assert source.snapshots() == [new]
        source.remove_snapshot(old)
    assert lvm.origin.volumes["his"] is his
    assert his.active
    assert caplog.text.count("vga/his: the snapshot was made writable") == 1
