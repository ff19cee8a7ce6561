"""Starts LVM's, device-mapper's and the thin tools' programs; nothing else here starts processes.

A program that changes something is never killed: it runs in a process group of its own, so that a
Ctrl-C at the terminal does not reach it, writes to unlinked files, so that it never blocks on us,
and when it takes too long it is left alone: its outcome is unknown, and the caller looks again.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final, Protocol

from blockrep.errors import StorageError, UnsupportedHostError

__all__ = [
    "CommandRecord",
    "CommandResult",
    "OutcomeUnknownError",
    "ProcessRunner",
    "Runner",
    "describe_failure",
    "find_program",
    "require_root",
]

_PACKAGES: Final = {
    "dmsetup": "dmsetup",
    "losetup": "mount",
    "thin_delta": "thin-provisioning-tools",
    "thin_dump": "thin-provisioning-tools",
    "thin_restore": "thin-provisioning-tools",
}
_DEFAULT_PACKAGE: Final = "lvm2"
_SYSTEM_FOLDERS: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024  # lvs of some ten thousand volumes
_READ_BYTES: Final = 256 * 1024
_MAX_SHOWN: Final = 300


class OutcomeUnknownError(StorageError):
    """A command did not end in time; it still runs, and what it did must be read from the state."""


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One finished command: how long it took, and its status (None: not ended in time)."""

    argv: tuple[str, ...]
    seconds: float
    status: int | None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left; ``status`` 0 is success."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str


class Runner(Protocol):
    """Runs programs."""

    def take_log(self) -> list[CommandRecord]:
        """Return one record for each command that ended since the last of this."""

    def run(self, argv: Sequence[str]) -> CommandResult:
        """Run to the end, whatever the status.

        Raises:
            UnsupportedHostError: there is no such program; names the package that has it.
            OutcomeUnknownError: it did not end in time.
        """

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        """Yield the standard output of a program that only reads, in blocks.

        Leaving the iteration early ends the program. Raises StorageError if it fails, or is silent
        for the time limit; UnsupportedHostError as :meth:`run`.
        """


def require_root() -> None:
    """Raise UnsupportedHostError for everybody but root: LVM and device-mapper need it."""
    if os.geteuid() != 0:
        raise UnsupportedHostError(
            "LVM volumes can only be used by root",
            safe="nothing was changed",
            next_step="run it as root (sudo), or use an image file",
        )


def describe_failure(result: CommandResult) -> str:
    """Return one line: the program, its status and the end of what it said."""
    said = " ".join(result.stderr.split())
    return f"{result.argv[0]} failed with status {result.status}: {said[-_MAX_SHOWN:]}"


class ProcessRunner:
    """The :class:`Runner` of real processes.

    Args:
        timeout_seconds: after this a command's outcome is unknown.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._log: list[CommandRecord] = []
        self._timeout_seconds = timeout_seconds
        self._late: list[subprocess.Popen[bytes]] = []

    def take_log(self) -> list[CommandRecord]:
        """See :class:`Runner`."""
        log, self._log = self._log, []
        return log

    def run(self, argv: Sequence[str]) -> CommandResult:
        """See :class:`Runner`."""
        started = time.monotonic()
        status: int | None = None
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = _start(argv, stdout, stderr)
            try:
                status = process.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired as error:
                self._late = [one for one in self._late if one.poll() is None]
                self._late.append(process)  # to be reaped later
                raise OutcomeUnknownError(
                    f"{argv[0]} did not end in {self._timeout_seconds:g} s, and still runs",
                    where=" ".join(argv),
                    safe="nothing of it is undone; its outcome is read from LVM's state",
                    next_step="see why LVM hangs (a full or suspended pool?), then try again",
                ) from error
            finally:
                seconds = time.monotonic() - started
                self._log.append(CommandRecord(tuple(argv), seconds, status))
            return CommandResult(
                tuple(argv), status, _content(stdout), _content(stderr).decode(errors="replace")
            )

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        """See :class:`Runner`."""
        started = time.monotonic()
        status: int | None = None
        with tempfile.TemporaryFile() as stderr:
            process = _start(argv, subprocess.PIPE, stderr)
            assert process.stdout is not None
            try:
                with process.stdout:
                    yield from _blocks(process, self._timeout_seconds)
                status = process.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired as error:
                raise StorageError(
                    f"{argv[0]} said nothing for {self._timeout_seconds:g} s",
                    where=" ".join(argv),
                    safe="nothing was changed",
                    next_step="see why the pool's metadata cannot be read",
                ) from error
            finally:
                if process.poll() is None:
                    process.kill()  # it only reads
                    process.wait()
                seconds = time.monotonic() - started
                self._log.append(CommandRecord(tuple(argv), seconds, status))
            if status != 0:
                said = _content(stderr).decode(errors="replace")
                raise StorageError(
                    describe_failure(CommandResult(tuple(argv), status, b"", said)),
                    where=" ".join(argv),
                    safe="nothing was changed",
                )


def _blocks(process: subprocess.Popen[bytes], timeout_seconds: float) -> Iterator[bytes]:
    """Yield what the process writes; TimeoutExpired if it is silent for too long."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if not poll.poll(timeout_seconds * 1000):
            raise subprocess.TimeoutExpired(process.args, timeout_seconds)
        block = os.read(fd, _READ_BYTES)
        if not block:
            return
        yield block


def find_program(name: str) -> str | None:
    """Return the path of a program that a runner would start."""
    return shutil.which(name, path=_search_path())


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"


def _start(
    argv: Sequence[str], stdout: IO[bytes] | int, stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    path = _search_path()
    program = find_program(argv[0])
    if program is None:
        package = _PACKAGES.get(argv[0], _DEFAULT_PACKAGE)
        raise UnsupportedHostError(
            f"{argv[0]} is not installed",
            safe="nothing was changed",
            next_step=f"install the package that has it (Debian: apt-get install {package})",
        )
    # File descriptors of ours are not inherited, but those of whoever started us may be: LVM would
    # complain about each.
    environment = {**os.environ, "LC_ALL": "C", "PATH": path, "LVM_SUPPRESS_FD_WARNINGS": "1"}
    return subprocess.Popen(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd="/",
        close_fds=True,
        process_group=0,
    )


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MAX_OUTPUT_BYTES)
