"""Real file systems in files, mounted through loop devices."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024

#: Command that makes a file system, and the size that it needs at least.
MAKERS = {
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], 320 * MIB),
    "btrfs": (["mkfs.btrfs", "-q"], 256 * MIB),
    "ext4": (["mkfs.ext4", "-q"], 64 * MIB),
}
_TIMEOUT_SECONDS = 60


class CannotMountError(Exception):
    """This host cannot; the text says why."""


@contextlib.contextmanager
def mounted(kind: str, directory: Path, size_bytes: int = 0) -> Iterator[Path]:
    """Make and mount a file system below a directory. Raises CannotMountError."""
    command, least_bytes = MAKERS[kind]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise CannotMountError(f"{command[0]} is not installed")
    image, mount_point = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(size_bytes or least_bytes)
    mount_point.mkdir()
    for argv in ([*command, str(image)], ["mount", "-o", "loop", str(image), str(mount_point)]):
        done = subprocess.run(
            argv,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        if done.returncode:
            raise CannotMountError(f"{' '.join(argv)}: {done.stderr.strip()[:200]}")
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", str(mount_point)], check=True, timeout=_TIMEOUT_SECONDS)
        image.unlink()
