"""A disk with a volatile cache, power cuts and bad sectors: an NBD server for one virtual machine.

What the guest writes is what it reads, as on any disk; durable is only what was written before a
flush that was answered. A power cut ends the machine at a chosen write, and then decides for every
512-byte sector of every write since the last flush, by seed, whether it got to the medium: all,
none, or torn, in any order of writes. (A killed QEMU alone loses nothing: the host keeps its
writes.)

The protocol is NBD's, fixed newstyle, simple replies:
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. FUA is not offered, so QEMU
flushes instead; a discard is durable at once, which a disk may do.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from blockrep.storage.image.kernel import punch_hole

SECTOR_BYTES = 512
#: Where LVM keeps a volume group's metadata, at the start of a physical volume. LVM 2.03 writes its
#: text and then its header without a flush between or after them, so that a disk that reorders may
#: end with a group that does not activate ("Checksum error"), whatever its users do. That is not
#: what these disks are for: here, such a write is durable at once, as on a disk that keeps order.
LVM_AREA_BYTES = 1 << 20

_OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_GO, _INFO, _ABORT = 7, 6, 2
_ACK, _INFO_REPLY, _UNSUPPORTED = 1, 3, (1 << 31) | 1
_HAS_FLAGS, _SEND_FLUSH, _SEND_TRIM = 1, 4, 32
_READ, _WRITE, _DISCONNECT, _FLUSH, _TRIM = range(5)
_EIO, _EINVAL = 5, 22


class Medium:
    """What a disk holds, and what its cache holds on top of that."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.size_bytes = size_bytes
        self._durable, self._seen = (self._make(folder / name) for name in ("durable", "seen"))
        self._unflushed: list[tuple[int, bytes]] = []

    def close(self) -> None:
        os.close(self._durable)
        os.close(self._seen)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._seen, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        if offset < LVM_AREA_BYTES:
            os.pwrite(self._durable, data, offset)
        else:
            self._unflushed.append((offset, data))
        os.pwrite(self._seen, data, offset)

    def flush(self) -> None:
        for offset, data in self._unflushed:
            os.pwrite(self._durable, data, offset)
        self._unflushed = []

    def discard(self, offset: int, length: int) -> None:
        """Let a range read as zeros, and forget what was on its way there."""
        for file in (self._durable, self._seen):
            punch_hole(file, offset, length)
        end = offset + length
        unflushed, self._unflushed = self._unflushed, []
        for start, data in unflushed:
            before, after = data[: max(0, offset - start)], data[max(0, end - start) :]
            if before:
                self._unflushed.append((start, before))
            if after:
                self._unflushed.append((max(start, end), after))

    def lose_unflushed(self, rng: random.Random) -> int:
        """Decide what of the cache got to the medium; return how many sectors did not."""
        chance = rng.choice([0.0, 0.1, 0.5, 0.9])
        lost = 0
        for offset, data in self._unflushed:
            for start in range(0, len(data), SECTOR_BYTES):
                if rng.random() < chance:
                    os.pwrite(self._durable, data[start : start + SECTOR_BYTES], offset + start)
                else:
                    lost += 1
        for offset, data in self._unflushed:
            os.pwrite(self._seen, os.pread(self._durable, len(data), offset), offset)
        self._unflushed = []
        return lost

    def _make(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.ftruncate(file, self.size_bytes)
        return file


class VolatileDisk:
    """Serves one disk to one machine at a time, in a thread, until it is closed.

    Attributes:
        address: of the server, a Unix socket; the export has no name.
        writes: how many were asked for so far.

    Args:
        folder: where the disk lies, two sparse files.
        size_bytes: of the disk.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.writes = 0
        self._medium = Medium(folder, size_bytes)
        self._lock = threading.Lock()
        self._cut_at = 0
        self._cut_after_notes = 0
        self._notes = 0
        self._cut: Callable[[], object] = lambda: None
        self._bad = b""
        self._flushes_fail = False
        # The path of a Unix socket has room for 107 bytes.
        self._folder = tempfile.mkdtemp(prefix="nbd-")
        self.address = f"{self._folder}/disk"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, name="nbd", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server; only after its machine."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self._medium.close()
        shutil.rmtree(self._folder)

    def cut_power_after(self, writes: int, cut: Callable[[], object]) -> None:
        """Have ``cut`` called, from another thread, at so many writes from now.

        That write is in the cache, neither answered nor flushed; nothing is served after it.
        """
        with self._lock:
            self._cut_at, self._cut = self.writes + writes, cut

    def cut_power_after_notes(self, notes: int, cut: Callable[[], object]) -> None:
        """As :meth:`cut_power_after`, at the first write elsewhere after so many to LVM's area.

        LVM notes a change by two of them, text and header, before it tells the pool, and by two
        more after that.
        """
        with self._lock:
            self._cut_after_notes, self._cut, self._notes = notes, cut, 0

    def spoil(self, content: bytes) -> None:
        """Let no sector be read that holds this content, and none be written."""
        with self._lock:
            self._bad = content

    def fail_flushes(self) -> None:
        """Let every flush from now on fail; what is in the cache stays there."""
        with self._lock:
            self._flushes_fail = True

    def repair(self) -> None:
        """End what these two began."""
        with self._lock:
            self._bad, self._flushes_fail = b"", False

    def lose_unflushed(self, rng: random.Random) -> int:
        """Decide what of the cache got to the medium; return how many sectors did not.

        Only while the machine is off.
        """
        with self._lock:
            self._cut_at = self._cut_after_notes = 0
            return self._medium.lose_unflushed(rng)

    def empty(self) -> None:
        """Make it as new; only while the machine is off."""
        self.repair()
        with self._lock:
            self._medium.discard(0, self._medium.size_bytes)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError, EOFError):
                stream = _Stream(connection)
                if self._agree(stream):
                    self._answer(stream)

    def _agree(self, stream: _Stream) -> bool:
        """Run the handshake; False: the client only wanted to know."""
        stream.send(struct.pack(">8sQH", b"NBDMAGIC", _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES))
        stream.receive(4)
        while True:
            _, option, length = struct.unpack(">QII", stream.receive(16))
            stream.receive(length)
            if option in {_GO, _INFO}:
                flags = _HAS_FLAGS | _SEND_FLUSH | _SEND_TRIM
                export = struct.pack(">HQH", 0, self._medium.size_bytes, flags)
                stream.send(_option_reply(option, _INFO_REPLY, export))
                stream.send(_option_reply(option, _ACK))
                if option == _GO:
                    return True
            elif option == _ABORT:
                stream.send(_option_reply(option, _ACK))
                return False
            else:
                stream.send(_option_reply(option, _UNSUPPORTED))

    def _answer(self, stream: _Stream) -> None:
        while True:
            magic, _, kind, handle, offset, length = struct.unpack(">IHHQQI", stream.receive(28))
            if magic != _REQUEST_MAGIC:
                raise ConnectionError("not a request of NBD")
            data = stream.receive(length) if kind == _WRITE else b""
            if kind == _DISCONNECT:
                return
            with self._lock:
                error, answer = self._do(kind, offset, length, data)
                if kind == _WRITE and self._is_cut(offset):
                    self._cut()
                    return
            stream.send(struct.pack(">IIQ", _REPLY_MAGIC, error, handle) + answer)

    def _is_cut(self, offset: int) -> bool:
        if offset < LVM_AREA_BYTES:
            self._notes += 1
        elif 0 < self._cut_after_notes <= self._notes:
            return True
        return self.writes == self._cut_at

    def _do(self, kind: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """Do what was asked for; return an error number and what follows it."""
        if kind == _READ:
            read = self._medium.read(offset, length)
            return (_EIO, b"") if self._bad and self._bad in read else (0, read)
        if kind == _WRITE:
            self.writes += 1
            if self._bad and self._bad in data:
                return _EIO, b""
            self._medium.write(offset, data)
        elif kind == _FLUSH:
            if self._flushes_fail:
                return _EIO, b""
            self._medium.flush()
        elif kind == _TRIM:
            self._medium.discard(offset, length)
        else:
            return _EINVAL, b""
        return 0, b""


class _Stream:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def receive(self, count: int) -> bytes:
        """Return exactly so many bytes. Raises EOFError."""
        parts = []
        while count:
            part = self._connection.recv(count)
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _option_reply(option: int, kind: int, content: bytes = b"") -> bytes:
    return struct.pack(">QIII", _OPTION_REPLY_MAGIC, option, kind, len(content)) + content
