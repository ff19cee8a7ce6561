"""Only staging is written (I4), a failed sync is final (I6), nobody's old data shows through."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.errors import InternalError, StorageError
from blockrep.model.extents import Extent, ExtentKind, summarize
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.reports import LogicalVolume, PoolStatus
from blockrep.storage.lvm.staging import LvmStaging
from storage.lvm.builders import simulated_volumes
from storage.lvm_simulation import KIB
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import Transfer, push

CHUNK = 64 * KIB
OLD = b"\xee"


def begun(volumes: SimulatedLvmVolumes, extents: list[Extent], size_bytes: int = 0) -> LvmStaging:
    transfer = Transfer(volumes, None)
    request = dataclasses.replace(transfer.request, plan=summarize(extents), new_chunks=9)
    if size_bytes:
        request = dataclasses.replace(request, size_bytes=size_bytes)
    staging = transfer.target.begin(request)
    assert isinstance(staging, LvmStaging)
    return staging


def content(volumes: SimulatedLvmVolumes, staging: LvmStaging) -> bytes:
    lv = volumes.replica.volumes[staging.mark.volume.name]
    return volumes.replica.read(lv, 0, lv.size_bytes)


@pytest.fixture
def unzeroed(tmp_path: Path) -> Iterator[SimulatedLvmVolumes]:
    with simulated_volumes(tmp_path, zeroes=False, discards="ignore") as volumes:
        yield volumes


def data(start: int, end: int) -> tuple[int, memoryview]:
    return start, memoryview(b"\x11" * (end - start))


def test_frames_may_cut_a_chunk_anywhere(unzeroed: SimulatedLvmVolumes) -> None:
    staging = begun(unzeroed, [Extent(CHUNK, 2 * CHUNK)])
    staging.write(*data(CHUNK, CHUNK + 1000))
    staging.write(*data(CHUNK + 1000, 2 * CHUNK + 5))
    staging.write(*data(2 * CHUNK + 5, 3 * CHUNK))
    staging.check_whole()
    assert OLD not in content(unzeroed, staging)
    staging.close()


@pytest.mark.parametrize("start", [1, CHUNK - 512, CHUNK + 4096])
def test_a_write_that_would_show_old_data_before_it_is_refused(
    unzeroed: SimulatedLvmVolumes, start: int
) -> None:
    staging = begun(unzeroed, [])
    with pytest.raises(InternalError, match="unwritten"):
        staging.write(*data(start, 2 * CHUNK))
    staging.close()


def test_a_write_that_shows_old_data_behind_it_ends_the_transfer(
    unzeroed: SimulatedLvmVolumes,
) -> None:
    staging = begun(unzeroed, [])
    staging.write(*data(0, CHUNK + 10))
    with pytest.raises(InternalError, match="unwritten"):
        staging.check_whole()
    with pytest.raises(InternalError, match="unwritten"):
        staging.write(*data(4 * CHUNK, 5 * CHUNK))
    staging.close()


def test_the_last_chunk_is_padded_with_zeros(unzeroed: SimulatedLvmVolumes) -> None:
    end = 1000 * KIB
    staging = begun(unzeroed, [], end)
    staging.write(*data(end // CHUNK * CHUNK, end))
    staging.check_whole()
    assert OLD not in content(unzeroed, staging)
    staging.close()


def test_a_transfer_resumed_at_its_end_is_whole(unzeroed: SimulatedLvmVolumes) -> None:
    """All is durable, and the connection broke before the commit."""
    end = 1000 * KIB
    transfer = Transfer(unzeroed, None)
    plan = summarize([Extent(end // CHUNK * CHUNK, end % CHUNK)])
    request = dataclasses.replace(transfer.request, plan=plan, new_chunks=9, size_bytes=end)
    staging = transfer.target.begin(request)
    staging.write(*data(end // CHUNK * CHUNK, end))
    staging.sync()
    staging.save_cursor(end, bytes(32))
    staging.close()
    again = unzeroed.target().begin(request)
    assert isinstance(again, LvmStaging)
    assert again.info.cursor_bytes == end
    again.check_whole()
    again.close()


def test_a_clearing_of_ragged_pieces_writes_zeros(unzeroed: SimulatedLvmVolumes) -> None:
    staging = begun(unzeroed, [])
    staging.clear(Extent(0, CHUNK + 10, ExtentKind.DISCARD))
    staging.clear(Extent(CHUNK + 10, CHUNK - 10, ExtentKind.DISCARD))
    staging.check_whole()
    assert not any(content(unzeroed, staging))
    staging.close()


def test_whole_chunks_are_discarded_and_edges_zeroed(lvm: SimulatedLvmVolumes) -> None:
    staging = begun(lvm, [])
    staging.write(*data(0, 4 * CHUNK))
    staging.clear(Extent(100, 3 * CHUNK, ExtentKind.DISCARD))
    shown = content(lvm, staging)
    assert shown[:100] == b"\x11" * 100
    assert not any(shown[100 : 3 * CHUNK + 100])
    assert shown[3 * CHUNK + 100 : 4 * CHUNK] == b"\x11" * (CHUNK - 100)
    mapped = lvm.replica.volumes[staging.mark.volume.name].mapping
    assert sorted(mapped) == [0, 3]
    staging.close()


def test_the_first_failed_sync_is_final(lvm: SimulatedLvmVolumes) -> None:
    staging = begun(lvm, [Extent(0, CHUNK)])
    staging.write(*data(0, CHUNK))
    with (
        lvm.failing("sync"),
        pytest.raises(StorageError, match="could not be made durable"),
    ):
        staging.sync()
    for use in (staging.sync, lambda: staging.save_cursor(CHUNK, bytes(32))):
        with pytest.raises(StorageError, match="failed before"):
            use()
    staging.close()
    # The next process does not resume it either.
    assert lvm.target().inspect().staging is None


def test_nothing_outside_of_the_volume_is_written(lvm: SimulatedLvmVolumes) -> None:
    staging = begun(lvm, [])
    end = staging.mark.size_bytes
    with pytest.raises(InternalError):
        staging.write(*data(end - 10, end + 10))
    with pytest.raises(InternalError):
        staging.clear(Extent(end - CHUNK, 2 * CHUNK, ExtentKind.DISCARD))
    staging.close()
    with pytest.raises(InternalError, match="after it was closed"):
        staging.write(*data(0, 10))


def test_the_room_is_that_above_the_reserve(lvm: SimulatedLvmVolumes) -> None:
    staging = begun(lvm, [])
    before = staging.space().free_bytes
    staging.write(*data(0, 10 * CHUNK))
    staging.sync()
    assert staging.space().free_bytes == before - 10 * CHUNK
    staging.close()


def test_where_the_kernel_discards_too_little_zeros_are_written(tmp_path: Path) -> None:
    """Chunks of 192 KiB: the kernel leaves some of them mapped, and says that all is done (I2)."""
    with simulated_volumes(tmp_path, chunk_bytes=192 * KIB) as volumes:
        size_bytes = len(volumes.read_live())
        volumes.write_live(0, b"\xaa" * size_bytes)
        base = push(volumes, None)
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        assert isinstance(staging, LvmStaging)
        staging.clear(Extent(0, size_bytes, ExtentKind.DISCARD))
        assert content(volumes, staging)[:size_bytes] == bytes(size_bytes)
        staging.close()


def test_a_discard_that_a_pool_without_changes_dropped_is_not_durable(
    lvm: SimulatedLvmVolumes,
) -> None:
    """dm-thin says yes to discards of a read-only pool, and a sync succeeds, too (I1)."""
    size_bytes = len(lvm.read_live())
    lvm.write_live(0, b"\xaa" * size_bytes)
    base = push(lvm, None)
    lvm.discard_live(0, size_bytes // 2)
    lvm.write_live(size_bytes // 2, b"\xbb" * CHUNK)
    transfer = Transfer(lvm, base)
    staging = transfer.target.begin(transfer.request)
    lvm.replica.mode = "ro"
    staging.clear(Extent(0, 2 * CHUNK, ExtentKind.DISCARD))
    with pytest.raises(StorageError, match="takes no changes"):
        staging.sync()
    with pytest.raises(StorageError, match="failed before"):
        staging.save_cursor(2 * CHUNK, bytes(32))
    staging.close()
    lvm.replica.mode = "rw"
    resumed = Transfer(lvm, base, new=transfer.new)
    assert resumed.replica.staging is not None
    assert resumed.replica.staging.cursor_bytes == 0
    resumed.run()
    assert lvm.read_replica() == resumed.content


def test_after_a_failed_sync_nobody_resumes_even_if_its_mark_stays(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = Transfer(lvm, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=2, save_every=1)
    staging.write(*data(0, CHUNK))
    lvm.replica.failing.add("sync")

    def failing(*_: object) -> None:
        raise StorageError("lvchange failed")

    monkeypatch.setattr(VolumeGroup, "change", failing)
    with pytest.raises(StorageError):
        staging.sync()
    monkeypatch.undo()
    staging.close()
    left = lvm.target().inspect().staging
    assert left is None or left.cursor_bytes == 0


def test_discards_before_metadata_was_extended_may_have_been_ignored(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool whose metadata was full says yes to them; once it is extended it looks well (I1)."""
    staging = begun(lvm, [])
    staging.clear(Extent(0, CHUNK, ExtentKind.DISCARD))
    staging.sync()
    look = VolumeGroup.confirmed_status

    def extended(group: VolumeGroup, pool: LogicalVolume) -> PoolStatus:
        status = look(group, pool)
        return dataclasses.replace(status, total_metadata_blocks=status.total_metadata_blocks * 2)

    monkeypatch.setattr(VolumeGroup, "confirmed_status", extended)
    staging.write(*data(0, CHUNK))
    staging.sync()  # no discard since: nothing to doubt
    monkeypatch.undo()
    staging.clear(Extent(0, CHUNK, ExtentKind.DISCARD))
    with pytest.raises(StorageError, match="extended between discards"):
        staging.sync()
    staging.close()
