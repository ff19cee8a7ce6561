"""A writer for the archive format of the initial RAM disk ("newc" cpio).

The kernel unpacks several concatenated archives, each of them compressed or not; that is how a
test's files reach the guest without a new image. Format: Documentation/driver-api/early-userspace/
buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class PayloadFile:
    """A regular file for the guest."""

    content: bytes
    mode: int = 0o644
    modified_seconds: int = 0


def _record(number: int, name: str, mode: int, modified_seconds: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, device and rdev numbers, namesize, check
    fields = (number, mode, 0, 0, links, modified_seconds, len(content), 0, 0, 0, 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in (*fields, len(encoded), 0))
    named = header + encoded
    return named + bytes(-len(named) % 4) + content + bytes(-len(content) % 4)


def archive(files: Mapping[str, PayloadFile], compression_level: int = 1) -> bytes:
    """Return a gzip-compressed archive of the files by their relative paths.

    The folders above each file are part of the archive. The same files give the same bytes.
    """
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    records = [
        _record(number, name, stat.S_IFDIR | 0o755, 0, b"")
        for number, name in enumerate(sorted(folders), start=1)
    ]
    for name, file in sorted(files.items()):
        mode = stat.S_IFREG | file.mode
        records.append(_record(len(records) + 1, name, mode, file.modified_seconds, file.content))
    records.append(_record(0, _TRAILER, 0, 0, b""))
    return gzip.compress(b"".join(records), compression_level, mtime=0)
