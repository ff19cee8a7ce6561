"""Receiving one stream: DATA messages are written while the next arrive.

Syncs run beside the writes. While the storage thread is at work, what arrives goes straight to it:
the event loop is busy decrypting then, and would give it more to do only milliseconds later.

An acknowledgement says ``durable`` only after the sync that covers it and the record of the cursor
(I1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from blockrep.protocol.messages import Ack, Commit, Data, Message
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.events import EventSink, Progress
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.writing import Decompressor, StagingWriter
from blockrep.storage.interface import Staging

__all__ = ["StreamReceiver", "Tally"]

#: Given to the storage thread and not begun; frames without payload take no room that counts.
_MAX_WAITING_FRAMES = 32
#: Written by one storage call: after it a sync may begin, and its error be noticed.
_CALL_FRAMES = 16
#: So many buffers become free at once.
_FREE_FRAMES = 4
_IDLE_SECONDS = 1.0
# On a slow link a quarter of the window takes minutes: so much would be lost with the connection,
# and so long nobody would look whether others fill the pool.
_MAX_UNSYNCED_SECONDS = 1.0


@dataclass(slots=True)
class Tally:
    """Counts what a transfer brings, for whoever watches.

    ``total_bytes``: of the plan; ``sink``: told the progress. ``wire_bytes``: as the sender counts.
    """

    total_bytes: int
    sink: EventSink
    done_bytes: int = 0
    durable_bytes: int = 0
    wire_bytes: int = 0

    def count(self, message: Data) -> None:
        """Count a frame that was written."""
        self.done_bytes += sum(one.length_bytes for one in message.segments)
        self.wire_bytes += message.window_cost_bytes

    def note_durable(self, done_bytes: int) -> None:
        """Note that so much of what was done is durable."""
        self.durable_bytes = done_bytes
        self.tell()

    def tell(self) -> None:
        """Tell the sink."""
        self.sink(Progress(self.done_bytes, self.durable_bytes, self.total_bytes, self.wire_bytes))


class StreamReceiver:
    """Receives the DATA frames of one transfer, up to its COMMIT.

    Args:
        channel: a session in state STREAMING.
        blocking: where writes and syncs run.
        staging: the open staging volume.
        size_bytes: size of the new snapshot.
        window_bytes: what the sender may have unacknowledged; a sync starts when a quarter of
            it is unsynced, or something has been for a second.
        decompressor: None if compression was not agreed on.
        limiter: what arrives waits for it; the sender notices by the buffers that stay full.
        tally: counts.
    """

    def __init__(
        self,
        channel: Channel,
        blocking: Blocking,
        staging: Staging,
        size_bytes: int,
        window_bytes: int,
        decompressor: Decompressor | None,
        limiter: RateLimiter,
        tally: Tally,
    ) -> None:
        self.tally = tally
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._blocking = blocking
        self._writer = StagingWriter(staging, size_bytes, decompressor)
        self._limiter = limiter
        self._sync_bytes = window_bytes // 4
        self._unsynced_bytes = 0
        self._unsynced_since_seconds = 0.0
        self._is_writing = False
        self._waiting: deque[Data] = deque()  # the storage thread takes from its left
        self._written: deque[Data] = deque()  # the storage thread adds at its right
        # With a rate, what was written waits for its turn before a sync is thought of.
        self._call_frames = 1 if limiter.is_limited else _CALL_FRAMES
        self._sync: asyncio.Task[None] | None = None

    async def receive_all(self) -> Commit:
        """Return COMMIT once everything that it covers is durable and the digests agree.

        Raises:
            BlockrepError: the peer, the storage, or the connection failed; what was
                acknowledged as durable stays.
        """
        self._channel.listen(self._take_at_once)
        try:
            while await self._take_arrived():
                await self._write()
                await self._check_sync()
                if self._sync is None and self._is_sync_due():
                    self._sync = asyncio.create_task(self._make_durable())
            commit = await self._channel.receive(Commit)
            await self._finish_sync()
            await self._make_durable()
            self._writer.check_complete(commit.digest)
        finally:
            self._channel.listen(None)
            await self._settle()
        return commit

    def _is_sync_due(self) -> bool:
        age_seconds = self._loop.time() - self._unsynced_since_seconds
        return self._unsynced_bytes >= self._sync_bytes or (
            self._unsynced_bytes > 0 and age_seconds >= _MAX_UNSYNCED_SECONDS
        )

    async def _take_arrived(self) -> bool:
        """Take the DATA messages that wait, at least one; False when something else comes next."""
        if not self._waiting:
            await self._wait_message()
        while len(self._waiting) < _MAX_WAITING_FRAMES and isinstance(self._channel.peek(), Data):
            self._waiting.append(await self._channel.receive(Data))
        return bool(self._waiting)

    def _take_at_once(self, message: Message) -> bool:
        """Give the storage thread a message that arrives while it is at work, in its order."""
        if not isinstance(message, Data) or not self._is_writing:
            return False
        if self._channel.peek() is not None or len(self._waiting) >= _MAX_WAITING_FRAMES:
            return False
        self._waiting.append(message)
        return True

    async def _wait_message(self) -> None:
        """Wait for the next message; when the sender pauses.

        Use the time to make durable what arrived.
        """
        while not await self._channel.wait_message(_IDLE_SECONDS):
            await self._check_sync()
            if self._writer.durable != self._writer.received and self._sync is None:
                self._sync = asyncio.create_task(self._make_durable())

    async def _write(self) -> None:
        """Write what waits, and what comes meanwhile."""
        if not self._unsynced_bytes:
            self._unsynced_since_seconds = self._loop.time()
        before_bytes = self.tally.wire_bytes
        self._is_writing = True
        try:
            await self._blocking.run(self._apply_waiting)
        finally:
            self._is_writing = False
            self._let_go()
        self.tally.tell()
        # What arrives now stays in the channel's buffers, until these are full.
        await self._limiter.take(self.tally.wire_bytes - before_bytes)

    def _apply_waiting(self) -> None:
        """In the storage thread: write until nothing waits, or for long enough."""
        for _ in range(self._call_frames):
            if not self._waiting:
                break
            message = self._waiting.popleft()
            self._writer.apply(message)
            self._written.append(message)
            if len(self._written) == _FREE_FRAMES:
                self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        """Count what was written; its buffers are free."""
        while self._written:
            message = self._written.popleft()
            self.tally.count(message)
            self._unsynced_bytes += message.window_cost_bytes
            if len(message.payload):
                self._channel.release(message.payload)

    async def _make_durable(self) -> None:
        if self._writer.durable == self._writer.received:
            self.tally.note_durable(self.tally.done_bytes)
            return
        self._unsynced_bytes = 0
        done_bytes = self.tally.done_bytes
        position = await self._blocking.run(self._writer.make_durable)
        await self._channel.send(Ack(self._writer.received.cursor_bytes, position.cursor_bytes))
        self.tally.note_durable(done_bytes)

    async def _check_sync(self) -> None:
        """Take note of a sync that ended; raise what it raised."""
        if self._sync is not None and self._sync.done():
            sync, self._sync = self._sync, None
            await sync

    async def _finish_sync(self) -> None:
        if self._sync is not None:
            sync, self._sync = self._sync, None
            await sync

    async def _settle(self) -> None:
        """Wait for a sync under way before the staging volume is closed."""
        if self._sync is not None:
            await asyncio.gather(self._sync, return_exceptions=True)
            self._sync = None
