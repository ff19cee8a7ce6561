"""Where snapshots and records live: ``.blockrep/<file name>/source`` and ``.../target``.

Beside the image, because clones and renames need the same file system. Only files named by 32
hexadecimal digits and a suffix, or by one of the fixed names of
:mod:`blockrep.storage.image.records`, are ours; others that lie there are left alone (I7).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path

from blockrep.errors import StorageError, VolumeError
from blockrep.model.extents import Extent
from blockrep.model.names import VolumeName
from blockrep.storage.files import make_directories, opened_fd, write_full
from blockrep.storage.image import fiemap, kernel
from blockrep.storage.image.files import io_errors, storage_error

__all__ = ["DIRECTORY_NAME", "ImageFile"]

DIRECTORY_NAME = ".blockrep"
_OURS = re.compile(r"([0-9a-f]{32})\.(json|img|table|redo)(\.tmp)?")
_PROBE_BYTES = 4096
_PASSING = {
    errno.EAGAIN,
    errno.EDQUOT,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
}
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ImageFile:
    """An image file by its path, and one of the two directories of ours that belong to it.

    Args:
        name: the volume; a relative path is taken from the working directory of now, symbolic
            links are followed now.
        role: ``source`` or ``target``.
    """

    def __init__(self, name: VolumeName, role: str) -> None:
        self.path = Path(os.path.realpath(name.path))
        self.directory = self.path.parent / DIRECTORY_NAME / self.path.name / role

    def stat(self) -> os.stat_result | None:
        """Return the file's stat, None if it does not exist.

        Raises:
            VolumeError: it is not a plain file, is one of ours, or its directory does not exist;
                or the directories of ours are not to be trusted.
            StorageError: they are closed to this user.
        """
        self._check_directories()
        if DIRECTORY_NAME in self.path.parts:
            raise self.error("this is where blockrep keeps its own files", "name the image itself")
        try:
            result = self.path.lstat()
        except FileNotFoundError:
            if self.path.parent.is_dir():
                return None
            raise self.error(
                "its directory does not exist", "create it, or name another path"
            ) from None
        except OSError as error:
            raise self.error(f"cannot be looked at: {error.strerror}", "check the path") from error
        if stat.S_ISBLK(result.st_mode):
            raise self.error("block devices are not supported by path", "name the volume as VG/LV")
        if not stat.S_ISREG(result.st_mode):
            raise self.error("not a plain file", "name an image file, or a volume as VG/LV")
        return result

    def identity(self) -> str:
        """Return what tells this inode from every other on this host, since it was started.

        The time of birth tells a reused inode number from its predecessor, so nothing has to be
        stored in a directory that is only looked at; and hard links to one file have one identity.
        """
        with io_errors("cannot be opened", self.path), opened_fd(self.path, os.O_RDONLY) as fd:
            result = os.fstat(fd)
            birth_ns = kernel.birth_time_ns(fd)
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        text = f"{boot_id} {result.st_dev} {result.st_ino} {birth_ns}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def can_clone(self) -> bool:
        """Tell, by trying on nameless files, whether files here share blocks and tell where.

        There are file systems that clone, but whose extent maps tell no places (Linux' SMB client
        says that every file lies at its own offsets): what is relied on must be seen.

        Raises:
            NoSpaceError, StorageError: it could not be tried.
        """
        flags = os.O_TMPFILE | os.O_RDWR
        whole = [Extent(0, _PROBE_BYTES)]
        try:
            with (
                opened_fd(self.path.parent, flags) as source,
                opened_fd(self.path.parent, flags) as other,
                opened_fd(self.path.parent, flags) as cloned,
            ):
                for fd in (source, other):
                    # Nothing that compresses, or that lies there already.
                    write_full(fd, memoryview(os.urandom(_PROBE_BYTES)), 0)
                kernel.clone(source, cloned)
                of_clone, of_other = (
                    list(fiemap.clone_delta(source, _PROBE_BYTES, fd, _PROBE_BYTES))
                    for fd in (cloned, other)
                )
                return not of_clone and of_other == whole
        except OSError as error:
            if error.errno in _PASSING:  # "no" would be another answer than the last time
                raise storage_error(
                    error, "whether files can share blocks cannot be tried", self.path.parent
                ) from error
            # Not supported; or no permission: what comes next runs into that, too, and explains it.
            return False

    def make_directory(self) -> None:
        """Create the directory of ours, durably, for our eyes only."""
        with io_errors("its directory cannot be made", self.directory):
            make_directories(self.directory)
        self._check_directories()

    def check_one_file_system(self) -> None:
        """Refuse a directory of ours from which nothing can be renamed into the image's place.

        Raises:
            VolumeError: it is a mount point, or a subvolume of btrfs.
        """
        for directory in self._directories():
            if directory.exists() and directory.stat().st_dev != self.path.parent.stat().st_dev:
                raise VolumeError(
                    "on another file system (or subvolume) than the image",
                    where=str(directory),
                    safe="nothing was changed",
                    next_step="have it be a plain directory beside the image",
                )

    def _directories(self) -> tuple[Path, ...]:
        return (*reversed(self.directory.parents[:2]), self.directory)

    def _check_directories(self) -> None:
        """Refuse directories that another user could have planted, or planted something in.

        Raises VolumeError; StorageError: they are another user's, and closed to this one.
        """
        for directory in self._directories():
            try:
                found = directory.lstat()
            except PermissionError as error:
                raise StorageError(
                    f"what blockrep keeps beside the image cannot be looked at: {error.strerror}",
                    where=str(directory),
                    safe="nothing was changed",
                    next_step="run as the user who replicated this image before, such as root",
                ) from error
            except OSError:
                return  # not there, and so nothing below it
            trusted = found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o022
            if not stat.S_ISDIR(found.st_mode) or not trusted:
                raise VolumeError(
                    "not a directory that only its owner, blockrep's user or root, may write to",
                    where=str(directory),
                    safe="nothing was changed",
                    next_step="look at it, then remove it or correct its owner and mode",
                )

    def ours(self) -> dict[str, list[Path]]:
        """Return the files of ours that belong to snapshots, by snapshot id."""
        found: dict[str, list[Path]] = {}
        with io_errors("cannot be listed", self.directory):
            if self.directory.is_dir():
                for path in sorted(self.directory.iterdir()):
                    if match := _OURS.fullmatch(path.name):
                        found.setdefault(match[1], []).append(path)
        return found

    def error(self, what: str, next_step: str) -> VolumeError:
        """Return an error about this image before which nothing was changed."""
        return VolumeError(
            what, where=str(self.path), safe="nothing was changed", next_step=next_step
        )
