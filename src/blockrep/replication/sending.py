"""Streaming one plan: read ahead in a storage thread, keep within the window and the rate.

Follow the acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import islice

from blockrep.model.extents import Extent, skip_before
from blockrep.protocol.messages import Ack, Message, Ready
from blockrep.replication import events
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.reading import Compressor, FrameBuilder, OutgoingFrame, group_for_frames
from blockrep.storage.interface import SnapshotReader

__all__ = ["StreamSender"]

_BATCH_FRAMES = 4
_BATCHES_IN_FLIGHT = 4  # one building, two waiting, one being sent
_PROGRESS_SECONDS = 0.1


class StreamSender:
    """Sends the DATA frames of one transfer.

    Args:
        channel: a session in state STREAMING.
        blocking: where the snapshot is read.
        plan: what to send.
        ready: the receiver's cursor and chain.
        limiter: None or a full-speed limiter: as fast as it goes.
        sink: told the progress.
    """

    def __init__(
        self,
        channel: Channel,
        blocking: Blocking,
        plan: SpooledPlan,
        ready: Ready,
        limiter: RateLimiter,
        sink: events.EventSink,
    ) -> None:
        self._channel = channel
        self._blocking = blocking
        self._plan = plan
        self._ready = ready
        self._limiter = limiter
        self._sink = sink
        self._unacknowledged: deque[tuple[int, int, int]] = (
            deque()
        )  # cursor after it, window cost, plan bytes
        self._unacknowledged_bytes = 0
        self._done_bytes = 0
        self._durable_bytes = 0
        self._wire_bytes = 0
        self._next_progress = 0.0

    @property
    def wire_bytes(self) -> int:
        """Bytes of DATA frames sent in this session."""
        return self._wire_bytes

    async def send_all(self, reader: SnapshotReader, compressor: Compressor | None) -> bytes:
        """Send everything from the receiver's cursor on; return the chain after the last frame.

        Raises:
            BlockrepError: reading failed, or the session ended.
        """
        cursor_bytes = self._ready.cursor_bytes
        self._done_bytes = self._durable_bytes = await self._blocking.run(
            self._plan.done_bytes, cursor_bytes
        )
        if cursor_bytes:
            self._sink(events.Resumed(cursor_bytes, self._done_bytes, self._plan.total_bytes))
        chain = self._ready.chain
        self._channel.listen(self._take_ack)
        try:
            async with contextlib.aclosing(self._frames(reader, compressor)) as frames:
                async for frame in frames:
                    await self._send(frame)
                    chain = frame.message.chain
        finally:
            self._report(force=True)
        return chain

    def stop_listening(self) -> None:
        """Acknowledgements are of no interest any more: call after COMMITTED."""
        self._channel.listen(None)

    async def _send(self, frame: OutgoingFrame) -> None:
        message = frame.message
        cost_bytes = message.window_cost_bytes
        limits = self._channel.session.limits
        window_bytes = limits.window_bytes if limits else 0
        while self._unacknowledged and self._unacknowledged_bytes + cost_bytes > window_bytes:
            await self._channel.wait_changed()
        await self._limiter.take(cost_bytes)
        before = self._channel.sent_bytes
        self._unacknowledged.append((frame.end_bytes, cost_bytes, frame.covered_bytes))
        self._unacknowledged_bytes += cost_bytes
        await self._channel.send(message)
        self._wire_bytes += self._channel.sent_bytes - before
        self._done_bytes += frame.covered_bytes
        self._report()

    def _take_ack(self, message: Message) -> bool:
        if not isinstance(message, Ack):
            return False
        while self._unacknowledged and self._unacknowledged[0][0] <= message.durable_bytes:
            _, cost_bytes, covered_bytes = self._unacknowledged.popleft()
            self._unacknowledged_bytes -= cost_bytes
            self._durable_bytes += covered_bytes
        return True

    def _report(self, *, force: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if force or now >= self._next_progress:
            self._next_progress = now + _PROGRESS_SECONDS
            total_bytes = self._plan.total_bytes
            self._sink(
                events.Progress(
                    self._done_bytes, self._durable_bytes, total_bytes, self._wire_bytes
                )
            )

    async def _frames(
        self, reader: SnapshotReader, compressor: Compressor | None
    ) -> AsyncGenerator[OutgoingFrame, None]:
        limits = self._channel.session.limits
        payload_bytes = limits.max_payload_bytes if limits else 0
        groups = group_for_frames(skip_before(self._plan, self._ready.cursor_bytes), payload_bytes)
        builder = FrameBuilder(
            reader,
            payload_bytes,
            _BATCHES_IN_FLIGHT * _BATCH_FRAMES,
            self._ready.chain,
            compressor,
        )
        queue: asyncio.Queue[list[OutgoingFrame] | Exception] = asyncio.Queue(maxsize=2)
        producer = asyncio.create_task(self._produce(builder, groups, queue))
        try:
            while batch := await queue.get():
                if isinstance(batch, Exception):
                    raise batch
                for frame in batch:
                    yield frame
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)

    async def _produce(
        self,
        builder: FrameBuilder,
        groups: Iterator[list[Extent]],
        queue: asyncio.Queue[list[OutgoingFrame] | Exception],
    ) -> None:
        try:
            while batch := list(islice(groups, _BATCH_FRAMES)):
                await queue.put(await self._blocking.run(builder.build_batch, batch))
        except Exception as error:  # noqa: BLE001 - the consumer raises it, or would wait for ever
            await queue.put(error)
        else:
            await queue.put([])
