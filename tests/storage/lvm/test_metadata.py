"""Of metadata snapshots only ours is released, and always; others are waited for (trap 11)."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from blockrep.errors import BusyError, StorageError
from blockrep.storage.lvm import metadata as module
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.thin_xml import Run, RunKind
from storage.lvm_simulation import SimulatedRunner
from storage.simulated_lvm_volumes import SimulatedLvmVolumes


class Between(SimulatedRunner):
    """Does something in the middle of a tool's output."""

    happening = staticmethod(lambda: None)

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        first, *rest = super().stream(argv)
        yield first[:50]
        type(self).happening()
        yield first[50:]
        yield from rest


def metadata_of(lvm: SimulatedLvmVolumes, runner: SimulatedRunner | None = None) -> PoolMetadata:
    group = VolumeGroup("vga", lvm.settings, runner or lvm.runner())
    return PoolMetadata(group, pool_of(group), wait_seconds=0)


def pool_of(group: VolumeGroup) -> LogicalVolume:
    pool = group.read().find("pool")
    assert pool is not None
    return pool


def dump(metadata: PoolMetadata, lvm: SimulatedLvmVolumes) -> list[Run]:
    live = VolumeGroup("vga", lvm.settings, lvm.runner()).read().find("live")
    assert live is not None
    return list(metadata.dump(live))


def record(lvm: SimulatedLvmVolumes) -> Path:
    folder = lvm.settings.state_directory / "metadata-snapshots"
    return folder / f"{lvm.origin.pool_uuid}.json"


def test_what_is_mapped(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, b"x")
    lvm.write_live(3 * lvm.unit_bytes, b"x")
    runs = dump(metadata_of(lvm), lvm)
    assert [(run.kind, run.offset_bytes // lvm.unit_bytes) for run in runs] == [
        (RunKind.MAPPED, 0),
        (RunKind.MAPPED, 3),
    ]
    assert lvm.origin.held is None
    assert not record(lvm).exists()


def test_somebody_elses_is_waited_for_and_never_released(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    with pytest.raises(BusyError, match=r"in use by another program \(root 77\)") as caught:
        dump(metadata_of(lvm), lvm)
    assert "dmsetup message vga-pool-tpool 0 release_metadata_snap" in str(caught.value)
    assert lvm.origin.held == (77, {})


def test_that_of_a_dead_process_of_ours_is_released(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.held = (77, {})
    record(lvm).parent.mkdir(parents=True)
    record(lvm).write_text(json.dumps({"transaction": 1, "root": 77}))
    dump(metadata_of(lvm), lvm)
    assert lvm.origin.held is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"transaction": 1, "root": 76}', '{"transaction": 9, "root": 77}']
)
def test_a_record_of_another_one_proves_nothing(lvm: SimulatedLvmVolumes, text: str) -> None:
    lvm.origin.held = (77, {})
    record(lvm).parent.mkdir(parents=True)
    record(lvm).write_text(text)
    with pytest.raises(BusyError):
        dump(metadata_of(lvm), lvm)
    assert lvm.origin.held is not None


def reserve_and_die(lvm: SimulatedLvmVolumes) -> None:
    """Leave what a process leaves that dies when it, or another one, has just reserved."""
    lvm.origin.held = (77, {})
    record(lvm).parent.mkdir(parents=True)
    record(lvm).write_text(json.dumps({"transaction": lvm.origin.transaction, "root": None}))


class Clock:
    """Time that passes when somebody sleeps; ``happening`` when it reaches ``at``."""

    def __init__(self, at: float = 0, happening: Callable[[], object] = lambda: None) -> None:
        self.now = 0.0
        self._at, self._happening = at, happening

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        if before < self._at <= self.now:
            self._happening()


def test_a_crash_right_after_reserving_is_recognised_by_the_transaction(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve_and_die(lvm)
    monkeypatch.setattr(module, "time", Clock())
    dump(metadata_of(lvm), lvm)
    assert lvm.origin.held is None


def test_one_that_somebody_reads_was_not_reserved_by_a_dead_process(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: the process may have died before it reserved, and another program reserved since."""
    reserve_and_die(lvm)
    monkeypatch.setattr(
        module, "time", Clock(4, lambda: setattr(lvm.origin, "metadata_readers", 1))
    )
    with pytest.raises(BusyError):
        dump(metadata_of(lvm), lvm)
    assert lvm.origin.held == (77, {})


def test_one_that_is_exchanged_meanwhile_was_not_reserved_by_a_dead_process(
    lvm: SimulatedLvmVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve_and_die(lvm)
    monkeypatch.setattr(module, "time", Clock(4, lambda: setattr(lvm.origin, "held", (78, {}))))
    with pytest.raises(BusyError):
        dump(metadata_of(lvm), lvm)
    assert lvm.origin.held == (78, {})


def test_one_that_was_exchanged_while_it_was_read_is_not_believed(
    lvm: SimulatedLvmVolumes,
) -> None:
    runner = Between([lvm.origin, lvm.replica])

    def exchange() -> None:
        lvm.origin.held = (12345, {})  # somebody released ours and reserved his

    Between.happening = staticmethod(exchange)
    try:
        with pytest.raises(BusyError):
            dump(metadata_of(lvm, runner), lvm)
    finally:
        Between.happening = staticmethod(lambda: None)
    assert lvm.origin.held == (12345, {})


def test_a_tool_that_fails_leaves_nothing_reserved(lvm: SimulatedLvmVolumes) -> None:
    runner = Between([lvm.origin, lvm.replica])

    def fail() -> None:
        raise StorageError("thin_dump failed with status 1")

    Between.happening = staticmethod(fail)
    try:
        with pytest.raises(StorageError, match="status 1"):
            dump(metadata_of(lvm, runner), lvm)
    finally:
        Between.happening = staticmethod(lambda: None)
    assert lvm.origin.held is None
    assert not record(lvm).exists()


def test_nothing_is_reserved_while_a_delta_is_consumed(lvm: SimulatedLvmVolumes) -> None:
    lvm.write_live(0, bytes(8 * lvm.unit_bytes))
    live = VolumeGroup("vga", lvm.settings, lvm.runner()).read().find("live")
    assert live is not None
    runs = metadata_of(lvm).dump(live)
    next(runs)
    assert lvm.origin.held is None


def test_thin_send_recv_is_waited_for(lvm: SimulatedLvmVolumes) -> None:
    with module._FOREIGN_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="in use by another program"):
            dump(metadata_of(lvm), lvm)
    assert lvm.origin.held is None


def test_a_pool_that_takes_no_messages_is_an_error(lvm: SimulatedLvmVolumes) -> None:
    lvm.origin.mode = "ro"
    with pytest.raises(StorageError, match="Operation not supported"):
        dump(metadata_of(lvm), lvm)
    assert not record(lvm).exists()
