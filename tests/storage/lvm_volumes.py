"""Logical volumes for the contract, inside a virtual machine: root, LVM, one disk to spoil."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

from blockrep.model.names import VolumeName
from blockrep.storage.interface import SourceVolume, StorageSettings, TargetVolume
from blockrep.storage.lvm.runner import CommandResult, ProcessRunner
from blockrep.storage.lvm.source import LvmSource
from blockrep.storage.lvm.target import LvmTarget
from storage.crash_steps import CrashSteps

KIB = 1024
MIB = 1024 * KIB
_BLKDISCARD = 0x1277
_TIMEOUT_SECONDS = 60

#: What changes a device or a file.
_CHANGING = ("fdatasync", "fsync", "pwrite", "rename", "replace", "unlink")


def lvm(*argv: str, check: bool = True) -> str:
    """Run a command for the test, not for the code under test."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
    )
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Pools:
    """The pools of both ends, ``VG/POOL``; they may be the same.

    ``extent_bytes``: of the target's group.
    """

    source: str
    target: str
    source_chunk_bytes: int
    target_chunk_bytes: int


def make_pool(
    device: str, group: str, *, chunk_kib: int, extent: str = "256k", options: Sequence[str] = ()
) -> str:
    """Make a volume group on a device, with a thin pool in it."""
    lvm("vgcreate", "-q", "-s", extent, group, device)
    argv = ["lvcreate", "-q", "-T", "-L", "200m", "--chunksize", f"{chunk_kib}k"]
    lvm(*argv, "--poolmetadatasize", "4m", *options, f"{group}/pool")
    return f"{group}/pool"


class CountingRunner(ProcessRunner):
    """Crashes instead of its nth command; after a crash, nothing runs any more."""

    def __init__(self, step: Callable[[str], None]) -> None:
        super().__init__(timeout_seconds=60)
        self._step = step

    def run(self, argv: Sequence[str]) -> CommandResult:
        self._step(" ".join(argv[:3]))
        return super().run(argv)

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        self._step(argv[0])
        yield from super().stream(argv)


class LvmVolumes:
    """See :class:`storage.volumes.Volumes`."""

    source_has_snapshots = True
    keeps_many = True
    #: A push takes seconds where processors are emulated; the simulation tries every step.
    crash_stride = 29

    def __init__(self, directory: Path, pools: Pools) -> None:
        self.pools = pools
        self.unit_bytes = pools.source_chunk_bytes
        self.sizes = (1536 * KIB, 3 * MIB, 5 * MIB)
        self.source_name = VolumeName(vg=pools.source.partition("/")[0], lv="live")
        self.target_name = VolumeName(vg=pools.target.partition("/")[0], lv="copy")
        self.settings = StorageSettings(
            directory / "state", directory / "run", pool=pools.target, command_timeout_seconds=60
        )
        self._steps = CrashSteps(_CHANGING)
        self._reboots = 0
        self._remove_all()
        self._create(self.source_name, pools.source, self.sizes[1])

    def close(self) -> None:
        """Check that nothing stays reserved or active, then remove everything."""
        for pool in {self.pools.source, self.pools.target}:
            device = pool.replace("-", "--").replace("/", "-")
            status = lvm("dmsetup", "status", f"{device}-tpool").split()
            assert status[6] == "-", "a metadata snapshot stayed reserved"
        self._remove_all()

    def source(self) -> SourceVolume:
        return LvmSource(self.source_name, self.settings, CountingRunner(self._steps.step))

    def target(self) -> TargetVolume:
        return LvmTarget(self.target_name, self.settings, CountingRunner(self._steps.step))

    def target_without_room(self) -> TargetVolume:
        state, run = self.settings.state_directory, self.settings.runtime_directory
        settings = StorageSettings(
            state, run, data_reserve_percent=100, metadata_reserve_percent=10,
            pool=self.pools.target,
        )  # fmt: skip
        return LvmTarget(self.target_name, settings)

    def missing_source(self) -> SourceVolume:
        return LvmSource(VolumeName(vg=self.source_name.vg, lv="nothing"), self.settings)

    def write_live(self, offset_bytes: int, data: bytes) -> None:
        _write(f"/dev/{self.source_name}", offset_bytes, data)

    def discard_live(self, offset_bytes: int, length_bytes: int) -> None:
        with _opened(f"/dev/{self.source_name}", os.O_RDWR) as fd:
            fcntl.ioctl(fd, _BLKDISCARD, struct.pack("=QQ", offset_bytes, length_bytes))

    def resize_live(self, size_bytes: int) -> None:
        size = int(
            lvm("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_size",
                str(self.source_name))
        )  # fmt: skip
        if size != size_bytes:
            program = ["lvextend"] if size < size_bytes else ["lvreduce", "-f"]
            lvm(*program, "-q", "-L", f"{size_bytes}b", str(self.source_name))

    def read_live(self) -> bytes:
        return Path(f"/dev/{self.source_name}").read_bytes()

    def read_replica(self) -> bytes:
        return Path(f"/dev/{self.target_name}").read_bytes()

    def tamper(self, offset_bytes: int, data: bytes) -> None:
        lvm("lvchange", "-q", "-prw", str(self.target_name))
        _write(f"/dev/{self.target_name}", offset_bytes, data)

    def make_foreign(self, content: bytes) -> None:
        self._create(self.target_name, self.pools.target, len(content))
        _write(f"/dev/{self.target_name}", 0, content)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        lvm("lvchange", "-q", "-prw", str(self.target_name))
        with _opened(f"/dev/{self.target_name}", os.O_RDWR):
            yield
        lvm("lvchange", "-q", "-pr", str(self.target_name))

    @contextlib.contextmanager
    def failing(self, what: Literal["write", "sync"]) -> Iterator[None]:
        name = "fdatasync" if what == "sync" else "pwrite"
        number = errno.EIO if what == "sync" else errno.ENOSPC
        with mock.patch.object(os, name, side_effect=OSError(number, os.strerror(number))):
            yield

    def crash_at(self, step: int) -> AbstractContextManager[object]:
        return self._steps.crash_at(step)

    def reboot(self) -> None:
        """Alternate between the death of the process and the restart of the machine."""
        self._reboots += 1
        _close_devices()
        if self._reboots % 2:
            return
        for group in {self.source_name.vg, self.target_name.vg}:
            lvm("vgchange", "-q", "-an", group)
            lvm("vgchange", "-q", "-ay", group)
        shutil.rmtree(self.settings.runtime_directory, ignore_errors=True)

    def plant_unowned(self) -> Callable[[], bool]:
        group, pool = self.target_name.vg, self.pools.target
        names = ["br_t_00000000_1_00000000", "br_g_00000000_9_00000000", "br_s_mine"]
        for name in names:
            self._create(VolumeName(vg=group, lv=name), pool, MIB)
            _write(f"/dev/{group}/{name}", 0, b"not ours")
        lvm("lvchange", "-q", "--addtag", "blockrep.role=staging", f"{group}/{names[0]}")

        def untouched() -> bool:
            return all(
                Path(f"/dev/{group}/{name}").read_bytes().startswith(b"not ours") for name in names
            )

        return untouched

    def _create(self, name: VolumeName, pool: str, size_bytes: int) -> None:
        argv = ["lvcreate", "-q", "-Wn", "-V", f"{size_bytes}b", "-n", name.lv, "-T", pool]
        lvm(*argv)

    def _remove_all(self) -> None:
        for pool in {self.pools.source, self.pools.target}:
            group = pool.partition("/")[0]
            thin = "lv_layout={thin} && lv_layout!={pool}"
            lvm("lvremove", "-q", "-f", "-y", "-S", thin, group)
            names = lvm("lvs", "--noheadings", "-o", "lv_name", group).split()
            assert names == ["pool"], names


def _close_devices() -> None:
    """Close what the "dead" process has open, as the kernel would."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("/dev/dm-"):
                os.close(int(entry.name))


def _write(path: str, offset_bytes: int, data: bytes) -> None:
    with _opened(path, os.O_RDWR) as fd:
        assert os.pwrite(fd, data, offset_bytes) == len(data)
        os.fsync(fd)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
