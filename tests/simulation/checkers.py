"""The promises of ARCHITECTURE.md, looked at after every step, not only at the end."""

from __future__ import annotations

from blockrep.model.snapshots import Snapshot
from blockrep.protocol.frames import FrameReader
from blockrep.protocol.messages import Ack, Committed, message_from
from blockrep.storage.memory import MemoryHost
from blockrep.storage.memory.disk import PagedFile
from support.frame_feeding import read_frames


class BrokenPromiseError(AssertionError):
    """A checker found one broken; says which."""


class Checkers:
    """Looks at both disks and at what the server says.

    Attributes:
        broken: the first promise that was found broken.
        looks: how often it looked.
    """

    def __init__(self, origin: MemoryHost, replica: MemoryHost, source: str, target: str) -> None:
        self._source = origin.volume(source)
        self._target = replica.volume(target)
        self._replica = replica
        self._taken: dict[str, PagedFile] = {}
        self._good: dict[str, tuple[Snapshot, PagedFile, dict[int, bytes]]] = {}
        self.broken: BrokenPromiseError | None = None
        self.looks = 0

    @property
    def newest_id(self) -> str:
        """The id of the newest good snapshot."""
        return list(self._target.goods)[-1] if self._target.goods else ""

    def pushed(self) -> None:
        """A push succeeded: the replica equals its snapshot, which is the base of the next."""
        self.look()
        newest, content = list(self._target.goods.values())[-1]
        live = self._target.live
        if live is None or live.read(0, live.size_bytes) != content.read(0, content.size_bytes):
            raise self._broken("the replica does not show the newest good snapshot")
        if not self._source.snapshots[newest.id][0].committed:
            raise self._broken("I5: the push ended, and its snapshot is not the base")

    def look(self) -> None:
        """Check I2, I3, I5 and I8."""
        self.looks += 1
        for snapshot_id, (_, content) in self._source.snapshots.items():
            self._taken.setdefault(snapshot_id, content)
        for snapshot, content in self._target.goods.values():
            known = self._good.get(snapshot.id)
            if known is None:
                self._check_content(snapshot, content)
                self._good[snapshot.id] = (snapshot, content, dict(content.pages))
            elif content is not known[1] or content.pages != known[2]:
                raise self._broken(f"I3: the good snapshot {snapshot.id[:8]} was written")
        if self._good and not self._target.goods:
            raise self._broken("I3: no good snapshot is left")
        common = self._target.goods.keys() & self._source.snapshots.keys()
        if self._good and not common:
            raise self._broken("I5: no common base is left")
        capacity = self._replica.capacity_bytes
        if capacity is not None and self._replica.used_bytes() > capacity:
            raise self._broken("I8: more is used than there is")

    def _broken(self, what: str) -> BrokenPromiseError:
        """Remember the first: the host on which it was found takes it for a defect of its own."""
        error = BrokenPromiseError(what)
        self.broken = self.broken or error
        return error

    def watch(self) -> Watcher:
        """Return what looks at one connection."""
        return Watcher(self)

    def check_ack(self, ack: Ack) -> None:
        """I1: what is acknowledged is on the disk, recorded, and right."""
        stage = self._target.stage
        if not ack.durable_bytes or stage is None:
            return
        end = ack.durable_bytes
        if stage.info.cursor_bytes < end:
            raise self._broken(f"I1: {end} acknowledged, {stage.info.cursor_bytes} recorded")
        wanted = self._taken[stage.info.snapshot_id].read(0, end)
        if stage.content.read(0, end) != wanted:
            raise self._broken(f"I2: {end} acknowledged, and not all of it is right")
        if stage.content.after_crash().read(0, end) != wanted:
            raise self._broken(f"I1: {end} acknowledged, and not all of it is durable")

    def check_committed(self, message: Committed) -> None:
        """COMMITTED speaks of what is good."""
        found = self._target.goods.get(message.snapshot_id)
        if found is None or found[0].digest != message.digest.hex():
            raise self._broken("I5: COMMITTED of what is not good")

    def _check_content(self, snapshot: Snapshot, content: PagedFile) -> None:
        wanted = self._taken.get(snapshot.id)
        if wanted is None:
            raise self._broken(f"I2: {snapshot.id[:8]} is good, and was never taken")
        size_bytes = wanted.size_bytes
        if content.size_bytes != size_bytes or content.unsynced:
            raise self._broken(f"I2: {snapshot.id[:8]} has another size, or is volatile")
        if content.read(0, size_bytes) != wanted.read(0, size_bytes):
            raise self._broken(f"I2: {snapshot.id[:8]} differs from its source")


class Watcher:
    """Reads what a server puts on the wire of one connection."""

    def __init__(self, checkers: Checkers) -> None:
        self._checkers = checkers
        self._reader = FrameReader()

    def __call__(self, content: bytes) -> None:
        for frame in read_frames(self._reader, content):
            message = message_from(frame)
            if isinstance(message, Ack):
                self._checkers.check_ack(message)
            elif isinstance(message, Committed):
                self._checkers.check_committed(message)
