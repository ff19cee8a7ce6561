"""The metadata snapshot of a thin pool: reserve it, let a tool read it, release it.

A pool has one. Who may use it is settled by two file locks (ours, one per pool, and the one of
thin-send-recv); a snapshot that is held nevertheless is left alone, unless our own record says that
a process of ours died with it. The record is written before the snapshot is reserved, with the
pool's transaction, and again with the root once that is known. A crash in between leaves a record
without a root, and perhaps another program reserved its own since: a snapshot is taken for ours
if its root is not another one, it was made in that transaction, and nobody reads it for some
seconds, as one who reserves it does.

What the tool says is spooled, as small binary records, before anybody consumes it: nothing is
locked or reserved while a delta is sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import IO, Final

from blockrep.errors import BusyError, StorageError, UnsupportedHostError
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.cursors import save_state
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.reports import LogicalVolume, PoolStatus
from blockrep.storage.lvm.runner import describe_failure
from blockrep.storage.lvm.thin_xml import Run, RunKind, ThinXml

__all__ = ["Holder", "PoolMetadata", "begun", "record_path"]

_RECORD = struct.Struct("<BQQ")
_RECORDS_PER_READ: Final = 4096
_MEMORY_BYTES: Final = 4 * 1024 * 1024
_WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2
#: Who reserves a metadata snapshot reads it next; after so long unread, its owner is gone.
_UNREAD_SECONDS: Final = 5.0
_ATTEMPTS: Final = 5
#: thin-send-recv (src/thin_send_recv.c) holds this while it has a metadata snapshot reserved.
_FOREIGN_LOCK: Final = Path("/var/run/thin-send-recv.lock")


def record_path(state_directory: Path, pool_uuid: str) -> Path:
    """Return where a process notes that it reserves a pool's metadata snapshot."""
    return state_directory / "metadata-snapshots" / f"{pool_uuid}.json"


def begun(runs: Iterator[Run]) -> Iterator[Run]:
    """Have the tool run now, and not when the first of its runs is asked for."""
    first = next(runs, None)
    return runs if first is None else itertools.chain((first,), runs)


class Holder(Enum):
    """Who has a pool's metadata snapshot reserved."""

    NOBODY = "nobody"
    RUNNING = "a running blockrep"
    DEAD = "a blockrep that died"
    FOREIGN = "another program"


class PoolMetadata:
    """Reads mappings out of one pool's metadata.

    Args:
        group: the pool's volume group.
        pool: the pool.
        wait_seconds: how long to wait for others before BusyError.
    """

    def __init__(
        self, group: VolumeGroup, pool: LogicalVolume, wait_seconds: float = _WAIT_SECONDS
    ) -> None:
        self._group = group
        self._pool = pool
        self._wait_seconds = wait_seconds
        settings = group.settings
        self._record = record_path(settings.state_directory, pool.uuid)
        self._lock = settings.runtime_directory / "locks" / f"pool-{pool.uuid}.lock"

    def compare(self, left: LogicalVolume, right: LogicalVolume) -> Iterator[Run]:
        """Yield how two volumes of the pool differ, ascending. Raises as :meth:`dump`."""
        vg, pool = self._group.vg, self._pool.name
        yield from self._read(commands.thin_delta(vg, pool, left.thin_id, right.thin_id))

    def dump(self, volume: LogicalVolume) -> Iterator[Run]:
        """Yield what a volume maps, ascending.

        Raises:
            BusyError: the metadata snapshot is somebody else's.
            StorageError: the metadata cannot be read.
        """
        yield from self._read(commands.thin_dump(self._group.vg, self._pool.name, volume.thin_id))

    def holder(self) -> Holder:
        """Tell who has the metadata snapshot reserved. Raises StorageError."""
        root = self._group.status(self._pool).held_root
        if root is None:
            return Holder.NOBODY
        try:
            with self._locked(self._lock, time.monotonic()):
                return Holder.DEAD if self._is_ours(root) else Holder.FOREIGN
        except BusyError:
            return Holder.RUNNING

    def release_left_behind(self) -> None:
        """Release what a dead process of ours reserved, and nothing else.

        Raises:
            BusyError: a process of ours, or thin-send-recv, is at it.
            StorageError: it cannot be released.
        """
        now = time.monotonic()
        with self._locked(self._lock, now), self._locked(_FOREIGN_LOCK, now):
            root = self._group.status(self._pool).held_root
            if root is not None and self._is_ours(root):
                self._release(root)

    def _read(self, argv: Sequence[str]) -> Iterator[Run]:
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as spool:
            deadline = time.monotonic() + self._wait_seconds
            with self._locked(self._lock, deadline), self._locked(_FOREIGN_LOCK, deadline):
                self._spool(argv, spool, deadline)
            spool.seek(0)
            while block := spool.read(_RECORD.size * _RECORDS_PER_READ):
                for kind, offset, length in _RECORD.iter_unpack(block):
                    yield Run(RunKind(kind), offset, length)

    def _spool(self, argv: Sequence[str], spool: IO[bytes], deadline: float) -> None:
        """Run the tool until the same snapshot was held from its start to its end."""
        for _ in range(_ATTEMPTS):
            root = self._reserve(deadline)
            reserved_at = time.monotonic()
            same = False
            try:
                spool.seek(0)
                spool.truncate()
                for kind, offset, length in ThinXml().runs(self._group.runner.stream(argv)):
                    spool.write(_RECORD.pack(kind, offset, length))
            finally:
                same = self._release(root)
                self._group.metadata_snapshot_seconds += time.monotonic() - reserved_at
            if same:
                return
        raise StorageError(
            "the pool's metadata snapshot was taken away while it was being read",
            where=self._pool.full_name,
            safe="nothing was changed",
            next_step="see which other tool reserves metadata snapshots of this pool",
        )

    def _reserve(self, deadline: float) -> int:
        """Reserve and return the root."""
        while True:
            status = self._group.status(self._pool)
            if status.held_root is not None and self._is_ours(status.held_root):
                self._release(status.held_root)
                continue
            if status.held_root is None:
                self._note(status.transaction, None)
                result = self._group.attempt(
                    commands.reserve_metadata(self._group.vg, self._pool.name)
                )
                if result.status == 0:
                    break
                self._record.unlink(missing_ok=True)
                if "busy" not in result.stderr:
                    raise StorageError(
                        describe_failure(result),
                        where=self._pool.full_name,
                        safe="nothing was changed",
                        next_step="see the state of the pool: lvs -o +lv_health_status",
                    )
            if time.monotonic() >= deadline:
                raise self._busy(status)
            time.sleep(_POLL_SECONDS)
        root = self._group.status(self._pool).held_root
        if root is None:
            raise StorageError(
                "the metadata snapshot was released by somebody else",
                where=self._pool.full_name,
                safe="nothing was changed",
            )
        self._note(status.transaction, root)
        return root

    def _release(self, root: int) -> bool:
        """Release our snapshot; False, and nothing released, if another one is held."""
        same = self._group.status(self._pool).held_root == root
        if same:
            self._group.change(commands.release_metadata(self._group.vg, self._pool.name))
        self._record.unlink(missing_ok=True)
        return same

    def _is_ours(self, held_root: int) -> bool:
        """Tell whether a process of ours, which is dead (we hold its lock), reserved it."""
        try:
            record = json.loads(self._record.read_bytes())
            root, transaction = record["root"], record["transaction"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if root not in {None, held_root}:
            return False
        # Freed blocks of metadata are used again soon: another's root may have that number.
        parser = ThinXml()
        argv = commands.thin_dump(self._group.vg, self._pool.name, 0)
        with contextlib.suppress(StorageError):  # only the superblock is of interest
            list(parser.runs(self._group.runner.stream(argv)))
        return bool(parser.transaction == transaction) and self._stays_unread(held_root)

    def _stays_unread(self, held_root: int) -> bool:
        """Tell whether a held snapshot stays what it is and nobody reads metadata for a while."""
        argv = commands.metadata_openers(self._group.vg, self._pool.name)
        until = time.monotonic() + _UNREAD_SECONDS
        while time.monotonic() < until:
            result = self._group.attempt(argv)
            if result.status != 0 or result.stdout.strip() != b"1":  # the pool itself
                return False
            if self._group.status(self._pool).held_root != held_root:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _note(self, transaction: int, root: int | None) -> None:
        record = {"group": self._pool.vg_uuid, "transaction": transaction, "root": root}
        save_state(self._record, json.dumps(record).encode())

    @contextlib.contextmanager
    def _locked(self, path: Path, deadline: float) -> Iterator[None]:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UnsupportedHostError(
                f"the lock file cannot be opened: {error.strerror}",
                where=str(path),
                safe="nothing was changed",
            ) from error
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise self._busy(None) from None
                    time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(fd)

    def _busy(self, status: PoolStatus | None) -> BusyError:
        release = " ".join(commands.release_metadata(self._group.vg, self._pool.name))
        held = "" if status is None else f" (root {status.held_root})"
        return BusyError(
            f"the thin pool's metadata snapshot is in use by another program{held}",
            where=self._pool.full_name,
            safe="nothing was changed",
            next_step=f"wait for it to end; if it has died: {release}",
        )
