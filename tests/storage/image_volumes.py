"""Image files for the contract, and failures put into their system calls."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from blockrep.model.names import VolumeName
from blockrep.storage.image import kernel
from blockrep.storage.image.source import ImageSource
from blockrep.storage.image.target import ImageTarget
from blockrep.storage.interface import SourceVolume, StorageSettings, TargetVolume
from storage.transfers import Transfer
from storage.volumes import CrashError

KIB = 1024

#: What changes a file system.
_CHANGING = (
    "chmod", "fchmod", "fchown", "fdatasync", "fsync", "ftruncate", "link", "mkdir", "pwrite",
    "pwritev", "rename", "replace", "unlink",
)  # fmt: skip
_WRITING = ("pwrite", "pwritev")


class ImageVolumes:
    """See :class:`storage.volumes.Volumes`."""

    sizes: tuple[int, ...] = (700 * KIB + 512, 1500 * KIB, 2 * KIB * KIB + 5 * 512)
    unit_bytes = 64 * KIB
    crash_stride = 1

    def __init__(self, directory: Path) -> None:
        (directory / "origin").mkdir()
        (directory / "replica").mkdir()
        self.live = directory / "origin" / "disk.img"
        self.replica = directory / "replica" / "copy.img"
        self.live.touch()
        self.resize_live(self.sizes[1])
        self.settings = StorageSettings(
            directory / "state", directory / "run", data_reserve_percent=0
        )
        self._crashed = False
        self.source_has_snapshots = self.keeps_many = self.clones = _shares_blocks(directory)

    def source(self) -> SourceVolume:
        return ImageSource(VolumeName(path=str(self.live)), self.settings)

    def target(self) -> TargetVolume:
        return ImageTarget(VolumeName(path=str(self.replica)), self.settings)

    def target_without_room(self) -> TargetVolume:
        state, run = self.settings.state_directory, self.settings.runtime_directory
        settings = StorageSettings(state, run, data_reserve_percent=100)
        return ImageTarget(VolumeName(path=str(self.replica)), settings)

    def missing_source(self) -> SourceVolume:
        return ImageSource(VolumeName(path=str(self.live.with_name("nothing"))), self.settings)

    def write_live(self, offset_bytes: int, data: bytes) -> None:
        with self.live.open("r+b") as file:
            file.seek(offset_bytes)
            file.write(data)

    def discard_live(self, offset_bytes: int, length_bytes: int) -> None:
        with self.live.open("r+b") as file:
            assert kernel.punch_hole(file.fileno(), offset_bytes, length_bytes)

    def resize_live(self, size_bytes: int) -> None:
        os.truncate(self.live, size_bytes)

    def read_live(self) -> bytes:
        return self.live.read_bytes()

    def read_replica(self) -> bytes:
        return self.replica.read_bytes()

    def tamper(self, offset_bytes: int, data: bytes) -> None:
        self.replica.chmod(0o600)
        with self.replica.open("r+b") as file:
            file.seek(offset_bytes)
            file.write(data)

    def make_foreign(self, content: bytes) -> None:
        self.replica.write_bytes(content)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        if not self.clones:  # it is updated in place: no one may have it open at all
            with self.replica.open("rb"):
                yield
            return
        self.replica.chmod(0o600)
        with self.replica.open("r+b"):
            self.replica.chmod(0o400)
            yield

    @contextlib.contextmanager
    def failing(self, what: Literal["write", "sync"]) -> Iterator[None]:
        names = ("fsync", "fdatasync") if what == "sync" else _WRITING
        number = errno.EIO if what == "sync" else errno.ENOSPC
        with contextlib.ExitStack() as stack:
            for name in names:
                failing = self._failing_at_the_replica(getattr(os, name), number)
                stack.enter_context(mock.patch.object(os, name, failing))
            yield

    def _failing_at_the_replica(self, function: Callable[..., Any], number: int) -> Any:
        def call(fd: int, *rest: Any) -> Any:
            if _link(Path(f"/proc/self/fd/{fd}")).startswith(f"{self.replica.parent}/"):
                raise OSError(number, os.strerror(number))
            return function(fd, *rest)

        return call

    def crash_at(self, step: int) -> AbstractContextManager[object]:
        self._crashed = True
        return Crashing(step)

    def close(self) -> None:
        """Check that nothing was left open.

        After a crash, close it as the end of a process does.
        """
        assert not self._close_left_open() or self._crashed

    def reboot(self) -> None:
        """Close what was open, which lets go of locks; a crash of blockrep takes nothing back."""
        self._close_left_open()

    def _close_left_open(self) -> bool:
        root = f"{self.live.parent.parent}/"
        left_open = [
            one.name for one in Path("/proc/self/fd").iterdir() if _link(one).startswith(root)
        ]
        for number in left_open:
            os.close(int(number))
        return bool(left_open)

    def plant_unowned(self) -> Callable[[], bool]:
        planted = [
            one / name
            for one in self.live.parent.parent.rglob(".blockrep/*/*")
            for name in ("notes.txt", "0123.img", "staging", "x.json")
        ]
        for path in planted:
            path.write_text("not ours")
        assert planted
        return lambda: all(path.read_text() == "not ours" for path in planted)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # the listing's own
        return ""


def _shares_blocks(directory: Path) -> bool:
    try:
        with (directory / "one").open("w+b") as one, (directory / "two").open("w+b") as two:
            one.write(bytes(4096))
            one.flush()
            kernel.clone(one.fileno(), two.fileno())
    except OSError:
        return False
    finally:
        (directory / "one").unlink()
        (directory / "two").unlink()
    return True


class Crashing:
    """Ends at the n-th change of the file system, a write in its middle.

    Nothing changes after that.
    """

    def __init__(self, step: int) -> None:
        self._steps_left = step
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        for name in _CHANGING:
            self._stack.enter_context(mock.patch.object(os, name, self._counting(name)))
        for name in ("clone", "punch_hole"):
            call = self._before(getattr(kernel, name))
            self._stack.enter_context(mock.patch.object(kernel, name, call))

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _counting(self, name: str) -> Callable[..., Any]:
        function = getattr(os, name)
        if name not in _WRITING:
            return self._before(function)
        pwrite = os.pwrite

        def write_half(fd: int, data: Any, offset: int) -> int:
            self._steps_left -= 1
            if self._steps_left == 0:
                joined = b"".join(data) if isinstance(data, list) else bytes(data)
                pwrite(fd, joined[: len(joined) // 2], offset)
            if self._steps_left <= 0:
                raise CrashError(name)
            return int(function(fd, data, offset))

        return write_half

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._steps_left -= 1
            if self._steps_left <= 0:
                raise CrashError(function.__name__)
            return function(*args, **kwargs)

        return call


def at_each_step(directory: Path) -> Iterator[tuple[int, ImageVolumes]]:
    """Yield steps to crash at, with fresh volumes for each; whoever takes them ends it."""
    for step in range(1, 100):
        (directory / str(step)).mkdir()
        yield step, ImageVolumes(directory / str(step))
    raise AssertionError("it never ends")


def crashes_in_commit(volumes: ImageVolumes, transfer: Transfer, step: int) -> bool:
    """Stream a transfer, and crash at a step of its commit; False: there is no such step."""
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    try:
        with Crashing(step):
            transfer.target.commit(staging, transfer.digest)
    except CrashError:
        volumes.reboot()
        return True
    return False
