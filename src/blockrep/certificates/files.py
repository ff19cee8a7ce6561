"""Writes keys and certificates: never overwritten, never half there, keys for the owner only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from blockrep.errors import ConfigurationError, StorageError

__all__ = [
    "CERTIFICATE_MODE",
    "KEY_MODE",
    "check_not_there",
    "prepare_directory",
    "replace_file",
    "write_new_files",
]

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
_DIRECTORY_MODE = 0o700


def prepare_directory(directory: Path) -> None:
    """Create the directory with mode 0700, or accept one in which nobody else can put files.

    Raises:
        ConfigurationError: others may write to it, or it is no directory.
        StorageError: it cannot be created.
    """
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        status = directory.stat()
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError("is not a directory", where=str(directory)) from error
    except OSError as error:
        raise StorageError(
            f"the directory cannot be created: {error.strerror}", where=str(directory)
        ) from error
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "others may write to this directory of keys",
            where=str(directory),
            safe="nothing was written",
            next_step=f"run: chmod go-w {directory}",
        )


def write_new_files(files: Sequence[tuple[Path, bytes, int]]) -> None:
    """Write files of one directory, given as (path, content, mode), to stable storage.

    All of them or, short of a crash, none.

    Raises:
        ConfigurationError: one exists already; nothing was changed.
        StorageError: writing failed; what had been written was removed again.
    """
    check_not_there([path for path, _, _ in files])
    with contextlib.ExitStack() as undo:
        for path, content, mode in files:
            try:
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
                )
                undo.callback(_remove, path)
                with os.fdopen(descriptor, "wb") as file:
                    # The umask may only have taken rights away; the mode is exact all the same.
                    os.fchmod(file.fileno(), mode)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                raise _exists(path) from None
            except OSError as error:
                raise StorageError(
                    f"cannot be written: {error.strerror}", where=str(path)
                ) from error
        _sync_directory(files[0][0].parent)
        undo.pop_all()


def check_not_there(paths: Sequence[Path]) -> None:
    """Raise ConfigurationError if one of the files exists: none is ever overwritten."""
    for path in paths:
        if os.path.lexists(path):
            raise _exists(path)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put new content in the place of a file, at once and durably.

    Raises:
        StorageError: writing failed; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.new")
    _remove(temporary)
    write_new_files([(temporary, content, mode)])
    try:
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise StorageError(f"cannot be replaced: {error.strerror}", where=str(path)) from error
    _sync_directory(path.parent)


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        "exists already and is never overwritten",
        where=str(path),
        safe="nothing was changed",
        next_step="choose another name, or move the old certificate and its key away first",
    )


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(directory)) from error
