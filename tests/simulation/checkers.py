"""The promises of ARCHITECTURE.md, looked at after every step, not only at the end."""

from __future__ import annotations

import struct

import msgpack

from blockrep.protocol.frames import MAGIC, FrameType
from simulation.disks import Content, Disk, Good, Taken

#: Magic, type, size of the header, size of the payload.
_PREFIX = struct.Struct(">4sBxHI4x")


class BrokenPromiseError(AssertionError):
    """A checker found one broken; says which."""


class Checkers:
    """Looks at both disks and at what the server says.

    Attributes:
        broken: the first promise that was found broken.
        looks: how often it looked.
    """

    def __init__(self, origin: Disk, replica: Disk) -> None:
        self._origin = origin
        self._replica = replica
        self._taken: dict[str, Content] = {}
        self._good: dict[str, object] = {}
        self._seen: tuple[dict[str, Good], dict[str, Taken]] = ({}, {})
        self._bases_taken_away = False
        self._lying_disk = False
        self.broken: BrokenPromiseError | None = None
        self.looks = 0

    @property
    def newest_id(self) -> str:
        """The id of the newest good snapshot."""
        return next(reversed(self._replica.goods()), "")

    def pushed(self) -> None:
        """A push succeeded: the replica equals its snapshot, which is the base of the next."""
        self.look()
        newest_id, newest = list(self._replica.goods().items())[-1]
        live = self._replica.live()
        wanted = newest.content.read(newest.size_bytes)
        if live is None or live.read(newest.size_bytes) != wanted:
            raise self._broken("the replica does not show the newest good snapshot")
        taken = self._origin.taken()
        if not taken[newest_id].committed:
            raise self._broken("I5: the push ended, and its snapshot is not the base")
        if len(taken) > 1 or self._replica.staged() is not None:
            raise self._broken("the push ended, and left a snapshot or a staging volume behind")

    def idle(self) -> None:
        """Nobody works: nothing is active or reserved that is not between two runs."""
        for disk in (self._origin, self._replica):
            if unfinished := disk.unfinished():
                raise self._broken(f"left behind: {unfinished}")

    def look(self) -> None:
        """Check I2, I3, I5, I7 and I8."""
        self.looks += 1
        goods, taken = self._replica.goods(), self._origin.taken()
        # A disk gives out the same objects as long as there is the same.
        if goods is not self._seen[0] or taken is not self._seen[1]:
            self._look_at_snapshots(goods, taken)
            self._seen = (goods, taken)
        for snapshot_id, good in goods.items():
            if not good.content.is_as(self._good[snapshot_id]):
                raise self._broken(f"I3: the good snapshot {snapshot_id[:8]} was written")
        for disk in (self._origin, self._replica):
            if disk.overfilled():
                raise self._broken("I8: a write found no room")
            if trespasses := disk.trespasses():
                raise self._broken(f"I7: touched, and not ours: {trespasses}")

    def _look_at_snapshots(self, goods: dict[str, Good], taken: dict[str, Taken]) -> None:
        """Check what there is, and what is there for the first time."""
        for snapshot_id, one in taken.items():
            self._taken.setdefault(snapshot_id, one.content)
        for snapshot_id, good in goods.items():
            if snapshot_id not in self._good:
                self._check_content(snapshot_id, good)
                self._good[snapshot_id] = good.content.mark()
        if self._good and not goods:
            raise self._broken("I3: no good snapshot is left")
        common = goods.keys() & taken.keys()
        if common:
            self._bases_taken_away = False
        if self._good and not common and not self._bases_taken_away:
            raise self._broken("I5: no common base is left")

    def excuse_missing_bases(self) -> None:
        """Take note that somebody took the bases away: nothing is promised against that."""
        self._bases_taken_away = True

    def excuse_lies(self, lying: bool) -> None:
        """Take note that the replica's disk begins to lie, or is honest again.

        Nothing is promised of what it holds then, but that a comparison tells.
        """
        self._lying_disk = lying
        goods = self._replica.goods()
        self._good = {name: goods[name].content.mark() for name in goods}

    def is_newest_right(self) -> bool:
        """Tell whether the newest good snapshot is what its source is."""
        newest_id, newest = list(self._replica.goods().items())[-1]
        wanted = self._taken[newest_id]
        return newest.content.read(newest.size_bytes) == wanted.read(wanted.size_bytes)

    def _broken(self, what: str) -> BrokenPromiseError:
        """Remember the first: the host on which it was found takes it for a defect of its own."""
        error = BrokenPromiseError(what)
        self.broken = self.broken or error
        return error

    def watch(self) -> Watcher:
        """Return what looks at one connection."""
        return Watcher(self)

    def check_ack(self, end: int) -> None:
        """I1: what is acknowledged, up to ``end``, is on the disk, recorded, and right."""
        staged = self._replica.staged()
        if not end or staged is None:
            return
        if staged.cursor_bytes < end:
            raise self._broken(f"I1: {end} acknowledged, {staged.cursor_bytes} recorded")
        if self._lying_disk:
            return
        wanted = self._taken[staged.snapshot_id].read(end)
        if staged.content.read(end) != wanted:
            raise self._broken(f"I2: {end} acknowledged, and not all of it is right")
        if staged.content.durable(end) != wanted:
            raise self._broken(f"I1: {end} acknowledged, and not all of it is durable")

    def check_committed(self, snapshot_id: str, digest: str) -> None:
        """COMMITTED speaks of what is good."""
        found = self._replica.goods().get(snapshot_id)
        if found is None or found.digest != digest:
            raise self._broken("I5: COMMITTED of what is not good")

    def _check_content(self, snapshot_id: str, good: Good) -> None:
        wanted = self._taken.get(snapshot_id)
        if wanted is None:
            raise self._broken(f"I2: {snapshot_id[:8]} is good, and was never taken")
        size_bytes = wanted.size_bytes
        if good.size_bytes != size_bytes:
            raise self._broken(f"I2: {snapshot_id[:8]} has another size than its source")
        if self._lying_disk:
            return
        content = wanted.read(size_bytes)
        if good.content.read(size_bytes) != content:
            raise self._broken(f"I2: {snapshot_id[:8]} differs from its source")
        if good.content.durable(size_bytes) != content:
            raise self._broken(f"I2: {snapshot_id[:8]} is good, and not on the disk")


class Watcher:
    """Reads what a server puts on the wire of one connection, by the norm's layout of a frame."""

    def __init__(self, checkers: Checkers) -> None:
        self._checkers = checkers
        self._rest = b""

    def __call__(self, content: bytes) -> None:
        self._rest += content
        while len(self._rest) >= _PREFIX.size:
            magic, number, header_bytes, payload_bytes = _PREFIX.unpack_from(self._rest)
            assert magic == MAGIC
            header_end = _PREFIX.size + header_bytes
            if len(self._rest) < header_end + payload_bytes:
                break
            if number in {FrameType.ACK, FrameType.COMMITTED}:
                header = msgpack.unpackb(self._rest[_PREFIX.size : header_end])
                if number == FrameType.ACK:
                    self._checkers.check_ack(header["durable"])
                else:
                    self._checkers.check_committed(header["id"].hex(), header["digest"].hex())
            self._rest = self._rest[header_end + payload_bytes :]
