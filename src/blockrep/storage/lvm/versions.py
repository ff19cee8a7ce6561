"""Which thin_delta may be trusted: by its version, and by what it says about known metadata.

thin_delta 1.0.0 to 1.0.5 misses changes: it joins runs that are neighbours in the volume without
looking whether they are neighbours in the pool (thin-provisioning-tools' CHANGES, 1.0.6). The
self-test needs neither root nor device-mapper: thin_restore writes metadata into a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockrep.errors import StorageError, UnsupportedHostError
from blockrep.storage.lvm.runner import Runner, describe_failure, find_program
from blockrep.storage.lvm.thin_xml import Run, RunKind, ThinXml

__all__ = ["check_thin_tools", "parse_version"]

_FIRST_BAD: Final = (1, 0, 0)
_FIRST_GOOD: Final = (1, 0, 6)
_METADATA_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_NEXT_STEP: Final = "install thin-provisioning-tools 1.0.6 or later (or 0.9.0)"

# Volume 1 maps 0-15 and 32-39; volume 2 shares 0-7 and 32-35, has 8-15 elsewhere in the pool, has
# 20-23 of its own and lacks 36-39. The bad versions say that 0-15 is the same.
_METADATA: Final = """\
<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="256">
  <device dev_id="1" mapped_blocks="24" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="16" time="0"/>
    <range_mapping origin_begin="32" data_begin="16" length="8" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="24" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="8" time="0"/>
    <range_mapping origin_begin="8" data_begin="100" length="8" time="1"/>
    <range_mapping origin_begin="20" data_begin="120" length="4" time="1"/>
    <range_mapping origin_begin="32" data_begin="16" length="4" time="0"/>
  </device>
</superblock>
"""
_EXPECTED: Final = (
    (RunKind.SAME, 0, 8),
    (RunKind.DIFFERENT, 8, 8),
    (RunKind.RIGHT_ONLY, 20, 4),
    (RunKind.SAME, 32, 4),
    (RunKind.LEFT_ONLY, 36, 4),
)

_File = tuple[int, int, int, int]
#: The files that were found good.
_trusted: set[_File] = set()


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Find a version number: ``0.9.0``, ``thin_delta 1.0.12``."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def check_thin_tools(runner: Runner) -> None:
    """Check version and behaviour of thin_delta; once for a process and an installation of it.

    Raises:
        UnsupportedHostError: missing, a version that misses changes, or a wrong answer.
    """
    program = _program()
    if program in _trusted:
        return
    result = runner.run(["thin_delta", "-V"])
    said = result.stdout.decode(errors="replace")
    version = parse_version(said)
    if result.status != 0 or version is None:
        raise _refused(f"its version is not known ({said.strip()[:80]!r})")
    if _FIRST_BAD <= version < _FIRST_GOOD:
        raise _refused(f"version {'.'.join(map(str, version))} silently misses changes")
    _self_test(runner)
    _trusted.add(program)


def _program() -> _File:
    """Return what changes when the program is replaced, by an upgrade, say, under a server."""
    path = find_program("thin_delta")
    if path is None:
        return (0, 0, 0, 0)
    found = Path(path).stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _self_test(runner: Runner) -> None:
    with tempfile.TemporaryDirectory(prefix="blockrep-") as name:
        text, file = Path(name, "metadata.xml"), Path(name, "metadata.bin")
        text.write_text(_METADATA, encoding="ascii")
        with file.open("wb") as metadata:
            metadata.truncate(_METADATA_BYTES)
        with _directly_accessible(runner, file) as path:
            restored = runner.run(["thin_restore", "-i", str(text), "-o", path])
            if restored.status != 0:
                raise _refused(f"its self-test cannot run: {describe_failure(restored)}")
            try:
                argv = ["thin_delta", "--thin1", "1", "--thin2", "2", path]
                runs = list(ThinXml().runs(runner.stream(argv)))
            except StorageError as error:
                raise _refused(f"its self-test failed: {error.what}") from error
    expected = [
        Run(kind, begin * _CHUNK_BYTES, length * _CHUNK_BYTES) for kind, begin, length in _EXPECTED
    ]
    if runs != expected:
        raise _refused("its self-test gave a wrong answer: it misses changes")


@contextlib.contextmanager
def _directly_accessible(runner: Runner, file: Path) -> Iterator[str]:
    """Give the file, or a loop device on it where the file system (tmpfs) has no O_DIRECT."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        attached = runner.run(["losetup", "--find", "--show", str(file)])
        device = attached.stdout.decode(errors="replace").strip()
        if attached.status != 0 or not device.startswith("/dev/"):
            raise _refused(f"its self-test cannot run: {describe_failure(attached)}") from None
        try:
            yield device
        finally:
            runner.run(["losetup", "--detach", device])
    else:
        yield str(file)


def _refused(why: str) -> UnsupportedHostError:
    return UnsupportedHostError(
        f"thin_delta cannot be trusted: {why}", safe="nothing was changed", next_step=_NEXT_STEP
    )
