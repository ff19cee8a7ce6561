"""Simulated logical volumes for the contract."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal
from unittest import mock

from blockrep.model.names import VolumeName
from blockrep.storage.interface import SourceVolume, StorageSettings, TargetVolume
from blockrep.storage.lvm import checking, metadata, preparing, reading, source, staging, target
from blockrep.storage.lvm import group as group_module
from blockrep.storage.lvm.reports import LogicalVolume, parse_volumes
from blockrep.storage.lvm.source import LvmSource
from blockrep.storage.lvm.target import LvmTarget
from storage.crash_steps import CrashSteps
from storage.lvm_simulation import SimulatedDevice, SimulatedGroup, SimulatedRunner

KIB = 1024
_CHANGING = ("fsync", "replace", "unlink")


class JumpingTime:
    """In the place of the module ``time``: whoever sleeps has slept at once."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@contextlib.contextmanager
def simulated(
    groups: dict[str, SimulatedGroup], directory: Path, step: Callable[[str], None]
) -> Iterator[None]:
    """Put the simulation in the place of device-mapper, for anybody."""

    class Device(SimulatedDevice):
        pass

    Device.groups, Device.step = groups, staticmethod(step)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(group_module, "parse_volumes", _parse_volumes))
        for module in (staging, preparing, reading):
            stack.enter_context(mock.patch.object(module, "BlockDevice", Device))
        for module in (checking, source, target):
            stack.enter_context(mock.patch.object(module, "check_thin_tools", _nothing))
        for module in (checking, group_module):
            stack.enter_context(mock.patch.object(module, "require_root", _nothing))
        stack.enter_context(mock.patch.object(target, "device_bytes", _unknown_size))
        stack.enter_context(mock.patch.object(target, "_OPEN_POLL_SECONDS", 0))
        stack.enter_context(mock.patch.object(metadata, "_FOREIGN_LOCK", directory / "foreign"))
        stack.enter_context(mock.patch.object(metadata, "_WAIT_SECONDS", 0))
        stack.enter_context(mock.patch.object(metadata, "time", JumpingTime()))
        yield


@functools.lru_cache(maxsize=100)
def _parse_volumes(text: bytes) -> list[LogicalVolume]:
    """Parse a report, once if it is as it was when it was last asked for."""
    return parse_volumes(text)


def _nothing(*_arguments: object) -> None:
    """Stand in for a check of the machine."""


def _unknown_size(_volume: LogicalVolume) -> int:
    return -1


class SimulatedLvmVolumes:
    """See :class:`storage.volumes.Volumes`; a context manager."""

    sizes: tuple[int, ...] = (1536 * KIB, 3072 * KIB, 5120 * KIB)
    source_has_snapshots = True
    keeps_many = True
    crash_stride = 1

    def __init__(self, directory: Path, origin: SimulatedGroup, replica: SimulatedGroup) -> None:
        self.origin, self.replica = origin, replica
        self.unit_bytes = origin.chunk_bytes
        self.directory = directory
        self.settings = StorageSettings(directory / "state", directory / "run")
        self._live = origin.add("live", self.sizes[1])
        self._steps = CrashSteps(_CHANGING)
        self._reboots = 0

    def simulated(self) -> AbstractContextManager[None]:
        groups = {group.vg: group for group in (self.origin, self.replica)}
        return simulated(groups, self.directory, self._steps.step)

    def close(self) -> None:
        """Check that nothing was left reserved, open or active."""
        for group in (self.origin, self.replica):
            assert group.held is None
            for lv in group.volumes.values():
                assert not lv.opened, lv
                assert not (lv.skipped and lv.active), lv

    def runner(self) -> SimulatedRunner:
        return SimulatedRunner([self.origin, self.replica], self._steps.step)

    def source(self) -> SourceVolume:
        return LvmSource(VolumeName(vg=self.origin.vg, lv="live"), self.settings, self.runner())

    def target(self) -> TargetVolume:
        return LvmTarget(VolumeName(vg=self.replica.vg, lv="copy"), self.settings, self.runner())

    def target_without_room(self) -> TargetVolume:
        settings = StorageSettings(
            self.settings.state_directory,
            self.settings.runtime_directory,
            data_reserve_percent=100,
        )
        return LvmTarget(VolumeName(vg=self.replica.vg, lv="copy"), settings, self.runner())

    def missing_source(self) -> SourceVolume:
        return LvmSource(VolumeName(vg=self.origin.vg, lv="none"), self.settings, self.runner())

    def write_live(self, offset_bytes: int, data: bytes) -> None:
        self.origin.write(self._live, offset_bytes, data)
        self.origin.sync(self._live)

    def discard_live(self, offset_bytes: int, length_bytes: int) -> None:
        self.origin.discard(self._live, offset_bytes, length_bytes)
        self.origin.commit()

    def resize_live(self, size_bytes: int) -> None:
        self._live.size_bytes = size_bytes

    def read_live(self) -> bytes:
        return self.origin.read(self._live, 0, self._live.size_bytes)

    def read_replica(self) -> bytes:
        copy = self.replica.volumes["copy"]
        assert copy.active
        return self.replica.read(copy, 0, copy.size_bytes)

    def tamper(self, offset_bytes: int, data: bytes) -> None:
        copy = self.replica.volumes["copy"]
        copy.read_only = False
        self.replica.write(copy, offset_bytes, data)
        self.replica.sync(copy)

    def make_foreign(self, content: bytes) -> None:
        copy = self.replica.add("copy", len(content))
        self.replica.write(copy, 0, content)
        self.replica.sync(copy)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        copy = self.replica.volumes["copy"]
        copy.read_only, copy.opened = False, 1
        yield
        copy.read_only, copy.opened = True, 0

    @contextlib.contextmanager
    def failing(self, what: Literal["write", "sync"]) -> Iterator[None]:
        self.replica.failing.add(what)
        yield
        self.replica.failing.discard(what)

    def crash_at(self, step: int) -> AbstractContextManager[object]:
        return self._steps.crash_at(step)

    def reboot(self) -> None:
        """Alternate between the death of the process and the restart of the machine."""
        self._reboots += 1
        for group in (self.origin, self.replica):
            group.close_all()
            if self._reboots % 2:
                group.go_on()  # LVM's command goes on without us
            else:
                group.lose_power(lambda: False)
                group.restart()
        if self._reboots % 2 == 0:
            shutil.rmtree(self.settings.runtime_directory, ignore_errors=True)

    def add_dependent(self, side: Literal["origin", "replica"], name: str) -> None:
        """Let somebody make a thick snapshot, ``theirs``, of a volume."""
        group = self.origin if side == "origin" else self.replica
        row = {"lv_name": "theirs", "lv_uuid": "t", "lv_size": "4096", "lv_layout": "linear"}
        group.external_lvs.append({**row, "origin": name})

    def plant_unowned(self) -> Callable[[], bool]:
        names = ["br_t_00000000_1_00000000", "br_g_00000000_9_00000000", "br_s_mine"]
        for name in names:
            lv = self.replica.add(name, 4096, ["blockrep.role=good"])
            self.replica.write(lv, 0, b"not ours")
            self.replica.sync(lv)

        def untouched() -> bool:
            return all(
                self.replica.read(self.replica.volumes[name], 0, 8) == b"not ours" for name in names
            )

        return untouched
