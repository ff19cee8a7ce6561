"""A file system that loses power, for the image kind: on a real one, by taking back.

What POSIX promises is kept, and no more: content is durable after a sync of the file, names are
after a sync of their directory, a rename is one change. Of what is not durable any part may have
reached the disk: of the changes of each name those up to some point (every combination can be
asked for), of content any pages (by chance).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

from blockrep.storage.image.files import FileStamp

_PAGE_BYTES = 4096
_NAMING = ("rename", "replace", "link", "unlink", "mkdir")
_DIRECTORY = -1
_link, _unlink, _open = os.link, os.unlink, os.open


@dataclass
class _File:
    """An inode; it lives on in the graves whatever becomes of its names."""

    grave: Path
    durable: bytes
    durable_ns: int


@dataclass
class _Change:
    """Names, and the inodes that they are of afterwards; None: removed."""

    names: dict[str, int | None]
    durable: bool = False


class PowerCut:
    """Watches what is changed below a folder, and can take back what is not durable.

    Args:
        root: what is there when it begins is durable.
        graves: a folder on the same file system, outside of it.
        rng: decides what was lost.
    """

    def __init__(self, root: Path, graves: Path, rng: random.Random) -> None:
        self._root = f"{root}/"
        self._graves = graves
        self._rng = rng
        self._files: dict[int, _File] = {}
        self._before: dict[str, int | None] = {}
        self._changes: list[_Change] = []
        self._stack = contextlib.ExitStack()
        for path in sorted(root.rglob("*")):
            is_directory = path.is_dir()
            self._before[str(path)] = _DIRECTORY if is_directory else self._bury(path)
            if not is_directory:
                self._settle(path.lstat().st_ino)

    def __enter__(self) -> Self:
        for name in _NAMING:
            self._patch(name, self._naming(name, getattr(os, name)))
        self._patch("open", self._opening)
        for name in ("fsync", "fdatasync"):
            self._patch(name, self._sync)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _patch(self, name: str, new: Callable[..., Any]) -> None:
        self._stack.enter_context(mock.patch.object(os, name, new))

    # Watching.

    def _bury(self, path: Path) -> int:
        """Keep a file's inode, also for when it has no name any more; return its number."""
        number = path.lstat().st_ino
        if number not in self._files:
            grave = self._graves / str(number)
            _link(path, grave)
            self._files[number] = _File(grave, b"", 0)
        return number

    def _settle(self, number: int) -> None:
        file = self._files[number]
        file.durable = file.grave.read_bytes()
        file.durable_ns = file.grave.stat().st_mtime_ns

    def _note(self, names: dict[str, int | None]) -> None:
        names = {name: number for name, number in names.items() if name.startswith(self._root)}
        if names:
            self._changes.append(_Change(names))

    def _naming(self, name: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(first: Any, *rest: Any, **options: Any) -> None:
            function(first, *rest, **options)
            if name == "unlink":
                self._note({str(first): None})
            elif name == "mkdir":
                self._note({str(first): _DIRECTORY})
            else:
                changed: dict[str, int | None] = {} if name == "link" else {str(first): None}
                self._note(changed | {str(rest[0]): self._bury(Path(rest[0]))})

        return call

    def _opening(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        named = flags & os.O_CREAT and str(path).startswith(self._root)
        is_new = named and not os.path.lexists(path)
        fd = _open(path, flags, *rest, **options)
        if is_new:
            self._note({str(path): self._bury(Path(path))})
        return fd

    def _sync(self, fd: int) -> None:
        """Take note of it; the real disk, which loses no power, need not know."""
        result = os.fstat(fd)
        if result.st_ino in self._files:
            self._settle(result.st_ino)
        elif stat.S_ISDIR(result.st_mode):
            directory = Path(f"/proc/self/fd/{fd}").readlink()
            for change in self._changes:
                if any(Path(name).parent == directory for name in change.names):
                    change.durable = True

    # Losing.

    def lose(self, choice: int) -> int:
        """Take back what was not durable, in part. Nothing below the folder may be open.

        Args:
            choice: a number; of names, there are so many ways to lose some of them.

        Returns:
            How many ways there are.
        """
        names, ways = dict(self._before), 1
        for changes in self._groups():
            outcomes = _outcomes(changes)
            names |= outcomes[choice % len(outcomes)]
            ways, choice = ways * len(outcomes), choice // len(outcomes)
        for path in sorted(Path(self._root).rglob("*"), reverse=True):
            if not path.is_dir():
                _unlink(path)
            elif names.get(str(path)) is None:
                path.rmdir()
        for name, number in sorted(names.items()):
            if number is not None and Path(name).parent.is_dir():
                if number == _DIRECTORY:
                    Path(name).mkdir(mode=0o700, exist_ok=True)
                else:
                    _link(self._files[number].grave, name)
        for file in self._files.values():
            self._lose_content(file)
        return ways

    def _groups(self) -> list[list[_Change]]:
        """Return changes of names that have to do with each other, in order."""
        groups: list[tuple[set[str], list[int]]] = []
        for number, change in enumerate(self._changes):
            names, numbers = set(change.names), [number]
            for one in [one for one in groups if one[0] & names]:
                groups.remove(one)
                names |= one[0]
                numbers += one[1]
            groups.append((names, numbers))
        return [[self._changes[one] for one in sorted(numbers)] for _, numbers in groups]

    def _lose_content(self, file: _File) -> None:
        result = file.grave.stat()
        now = file.grave.read_bytes()
        if now == file.durable:
            return
        share = self._rng.choice([0.0, 0.5, 1.0])
        size = self._rng.choice([len(now), len(file.durable)])
        old = file.durable.ljust(size, b"\0")
        file.grave.chmod(0o600)
        with file.grave.open("r+b") as target:
            target.truncate(size)
            for at in range(0, size, _PAGE_BYTES):
                page = old[at : at + _PAGE_BYTES]
                if self._rng.random() >= share and now[at : at + _PAGE_BYTES] != page:
                    target.seek(at)
                    target.write(page)
        file.grave.chmod(stat.S_IMODE(result.st_mode))
        modified_ns = self._rng.choice([result.st_mtime_ns, file.durable_ns])
        os.utime(file.grave, ns=(modified_ns, modified_ns))


def _outcomes(changes: list[_Change]) -> list[dict[str, int | None]]:
    """Return what may become of names that these changes tie together.

    Each name is as it was after one of its changes, the last durable one or a later one. A change
    of two names is a rename: it has happened to both or to none.
    """
    history: dict[str, list[int]] = {}
    for at, change in enumerate(changes):
        for name in change.names:
            history.setdefault(name, []).append(at)
    choices = []
    for numbers in history.values():
        durable = max((at + 1 for at, one in enumerate(numbers) if changes[one].durable), default=0)
        choices.append(range(durable, len(numbers) + 1))
    found = []
    for counts in itertools.product(*choices):
        upto = dict(zip(history, counts, strict=True))
        done = {name: numbers[: upto[name]] for name, numbers in history.items()}
        if all(
            len({at in done[name] for name in change.names}) == 1
            for at, change in enumerate(changes)
        ):
            last = {name: numbers[-1] for name, numbers in done.items() if numbers}
            found.append({name: changes[at].names[name] for name, at in last.items()})
    return found


@contextlib.contextmanager
def without_change_times() -> Any:
    """Leave the time of change out of stamps: giving back what a crash takes changes it."""

    def of(result: os.stat_result) -> FileStamp:
        return FileStamp(result.st_ino, result.st_size, result.st_mtime_ns, 0)

    with mock.patch.object(FileStamp, "of", of):
        yield
