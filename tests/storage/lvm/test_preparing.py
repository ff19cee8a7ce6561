"""Before anything is sent, staging has the right size, and zeros where nothing will be sent."""

from __future__ import annotations

import pytest

from blockrep.errors import StorageError
from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.preparing import Preparation, prepare_staging
from blockrep.storage.lvm.recovery import view_target
from blockrep.storage.lvm.tags import REPLICA_TAGS, GoodMark
from storage.lvm.builders import BASE_ID, LINEAGE, request, volume
from storage.lvm_simulation import KIB, SimulatedDevice
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import Transfer, push

REPLICA = volume(size_bytes=1024 * KIB)


def good(size_bytes: int, volume_bytes: int) -> GoodMark:
    """Return the newest good snapshot: what was sent has ``size_bytes``, its volume more."""
    snapshot = Snapshot(BASE_ID, LINEAGE, 1, 0, size_bytes, committed=True)
    return GoodMark(volume(size_bytes=volume_bytes), snapshot, REPLICA.uuid, 1)


@pytest.mark.parametrize(
    ("mode", "size", "base", "expected"),
    [
        ("incremental", 1024 * KIB, good(1024 * KIB, 1024 * KIB), (1024 * KIB, -1)),
        ("incremental", 1000 * KIB, good(1000 * KIB, 1024 * KIB), (1024 * KIB, -1)),
        # Grown within the replica's last extent: behind the base there are zeros already.
        ("incremental", 1024 * KIB, good(1000 * KIB, 1024 * KIB), (1024 * KIB, -1)),
        ("incremental", 2048 * KIB, good(1024 * KIB, 1024 * KIB), (2048 * KIB, 1024 * KIB)),
        # Smaller: what follows the new end is the old source's.
        ("incremental", 500 * KIB, good(1024 * KIB, 1024 * KIB), (512 * KIB, 500 * KIB)),
        # Somebody has extended the replica, which shows what a shrink had left mapped there.
        ("incremental", 1024 * KIB, good(512 * KIB, 512 * KIB), (1024 * KIB, 512 * KIB)),
        ("adopt", 1000 * KIB, None, (1024 * KIB, 1000 * KIB)),
        ("adopt", 1024 * KIB, None, (1024 * KIB, -1)),
        ("adopt", 3072 * KIB, None, (3072 * KIB, 1024 * KIB)),
        ("full", 1024 * KIB, None, (1024 * KIB, 0)),
    ],
)
def test_what_a_snapshot_of_the_replica_still_needs(
    mode: str, size: int, base: GoodMark | None, expected: tuple[int, int]
) -> None:
    found = Preparation.of(request(mode=mode, size_bytes=size), REPLICA, base)
    assert (found.size_bytes, found.clear_from_bytes) == expected
    assert found.is_needed(REPLICA) == (expected != (1024 * KIB, -1))


def test_a_new_replica_begins_empty_and_ready(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vgb", lvm.settings, lvm.runner())
    state = group.read()
    pool = state.find("pool")
    assert pool is not None
    view = view_target(state, "copy")
    mark = prepare_staging(group, request(base_id="", mode="full"), view, pool, None)
    assert mark.ready
    assert mark.of_uuid == ""
    assert mark.volume.name.startswith("br_t_")
    assert lvm.replica.volumes[mark.volume.name].mapping == {}


@pytest.mark.parametrize(
    "shape", [{}, {"discards": "ignore"}, {"zeroes": False, "discards": "ignore"}]
)
@pytest.mark.parametrize("kib", [100, 128, 300])
def test_what_lies_behind_the_source_reads_as_zeros(
    lvm: SimulatedLvmVolumes, shape: dict[str, object], kib: int
) -> None:
    for name, value in shape.items():
        setattr(lvm.replica, name, value)
    copy = lvm.replica.add("copy", 1024 * KIB, REPLICA_TAGS)
    content = b"\xaa" * (1024 * KIB)
    lvm.replica.write(copy, 0, content)
    group = VolumeGroup("vgb", lvm.settings, lvm.runner())
    state = group.read()
    view, pool = view_target(state, "copy"), state.find("pool")
    assert pool is not None
    assert view.replica is not None
    wanted = request(mode="adopt", base_id="", size_bytes=kib * KIB)
    mark = prepare_staging(group, wanted, view, pool, Preparation.of(wanted, view.replica, None))
    assert mark.ready
    staged = lvm.replica.volumes[mark.volume.name]
    assert not staged.opened
    shown = lvm.replica.read(staged, 0, staged.size_bytes)
    assert shown[: kib * KIB] == content[: kib * KIB]
    assert not any(shown[kib * KIB :])
    assert lvm.replica.read(copy, 0, copy.size_bytes) == content, "the replica was written"


def test_growing_again_does_not_show_what_was_cut_off(lvm: SimulatedLvmVolumes) -> None:
    copy = lvm.replica.add("copy", 512 * KIB, REPLICA_TAGS)
    # LVM keeps mappings past the end of a volume that was reduced.
    copy.size_bytes = 1024 * KIB
    lvm.replica.write(copy, 0, b"\xaa" * (1024 * KIB))
    copy.size_bytes = 512 * KIB
    group = VolumeGroup("vgb", lvm.settings, lvm.runner())
    state = group.read()
    view, pool = view_target(state, "copy"), state.find("pool")
    assert pool is not None
    assert view.replica is not None
    wanted = request(size_bytes=1024 * KIB)
    preparation = Preparation.of(wanted, view.replica, good(512 * KIB, 512 * KIB))
    mark = prepare_staging(group, wanted, view, pool, preparation)
    staged = lvm.replica.volumes[mark.volume.name]
    assert staged.size_bytes == 1024 * KIB
    assert not any(lvm.replica.read(staged, 512 * KIB, 512 * KIB))


def test_a_staging_volume_that_is_gone_is_an_error(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = VolumeGroup("vgb", lvm.settings, lvm.runner())
    state = group.read()
    pool = state.find("pool")
    assert pool is not None
    monkeypatch.setattr(group, "change", lambda _argv: None)
    with pytest.raises(StorageError, match="was not made, or was removed"):
        prepare_staging(group, request(mode="full"), view_target(state, "copy"), pool, None)


def test_a_discard_that_a_full_pool_ignored_is_not_taken_for_done(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its metadata was extended a moment later, and it takes changes again."""
    size_bytes = len(lvm.read_live())
    lvm.write_live(0, b"\xaa" * size_bytes)
    push(lvm, None)
    lvm.discard_live(0, size_bytes)
    lvm.write_live(0, b"new")
    transfer = Transfer(lvm, None, mode="full")
    real = SimulatedDevice.discard

    def discard(device: SimulatedDevice, offset_bytes: int, length_bytes: int) -> bool:
        lvm.replica.mode = "ro"
        done = real(device, offset_bytes, length_bytes)
        lvm.replica.mode = "rw"
        lvm.replica.total_metadata_blocks *= 2
        return done

    with monkeypatch.context() as full:
        full.setattr(SimulatedDevice, "discard", discard)
        with pytest.raises(StorageError, match="extended between discards"):
            transfer.target.begin(transfer.request)
    again = Transfer(lvm, None, mode="full", new=transfer.new)
    again.run()
    assert lvm.read_replica() == again.content
