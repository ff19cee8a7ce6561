"""Sends extents that are known as records through a pipe, and writes what arrives in place.

``python -I -S chunk_pipe.py send FILE EXTENTS | ... | python -I -S chunk_pipe.py receive FILE``.
The stand-in for thin_send and thin_recv on files: their stream is such records too, a small header
and the data, with no checksum, no acknowledgement and no resume. What thin_send does before,
reading the pool's metadata, is left out, which is in its favour; that this is Python costs some
15 ms at each end. It ends with fdatasync, which thin_recv leaves out, because the time of all tools
here ends when the data is on the disk.
"""

from __future__ import annotations

import os
import struct
import sys

_RECORD = struct.Struct("<QQ")
_PIECE_BYTES = 1024 * 1024


def send(path: str, extents: str) -> None:
    """Write each extent of the list, one ``OFFSET LENGTH`` a line, to standard output."""
    with open(path, "rb", buffering=0) as file, open(extents) as lines:  # noqa: PTH123 - start-up
        for line in lines:
            offset, left = map(int, line.split())
            while left:
                data = os.pread(file.fileno(), min(left, _PIECE_BYTES), offset)
                _write_all(_RECORD.pack(offset, len(data)) + data)
                offset, left = offset + len(data), left - len(data)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def receive(path: str) -> None:
    """Write what arrives on standard input to its place."""
    with open(path, "r+b", buffering=0) as file:  # noqa: PTH123 - start-up
        while record := sys.stdin.buffer.read(_RECORD.size):
            offset, length = _RECORD.unpack(record)
            os.pwrite(file.fileno(), sys.stdin.buffer.read(length), offset)
        os.fdatasync(file.fileno())


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:])
    else:
        receive(*sys.argv[2:])
