"""Streaming one plan: read ahead in a storage thread, keep within the window and the rate.

Follow the acknowledgements. What is read ahead is compressed, where that pays, only when it is its
turn: a link that turns out to be slow then has nothing before it that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from blockrep.model.extents import skip_before
from blockrep.protocol.messages import Ack, Data, Message, Ready
from blockrep.replication import events
from blockrep.replication.adapting import CompressionChoice
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.page_delta import PageDelta
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.reading import FrameBuilder, OutgoingFrame
from blockrep.storage.interface import SnapshotReader

__all__ = ["Compression", "Compressor", "StreamSender", "new_zstd_compressor"]

_BATCHES_IN_FLIGHT = 4  # one building, two waiting, one being sent
_PROGRESS_SECONDS = 0.1


class Compressor(Protocol):
    """Compresses one payload."""

    def compress(self, content: memoryview) -> bytes:
        """Return one zstd frame."""


@dataclass(frozen=True, slots=True)
class Compression:
    """Compression is possible. ``always``: whether it pays or not."""

    new_compressor: Callable[[], Compressor]
    always: bool = False


def new_zstd_compressor() -> Compressor:
    """Return a compressor for a :class:`Compression`; it is loaded only here."""
    from blockrep.replication.compression import ZstdCompressor  # noqa: PLC0415 - start-up time

    return ZstdCompressor()


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
        self._choice = CompressionChoice(asyncio.get_running_loop().time())
        self._compression: Compression | None = None
        self._compressor: Compressor | None = None

    @property
    def wire_bytes(self) -> int:
        """Bytes of DATA frames sent in this session."""
        return self._wire_bytes

    async def send_all(
        self,
        reader: SnapshotReader,
        compression: Compression | None = None,
        page_delta: Callable[[int], PageDelta] | None = None,
    ) -> bytes:
        """Send everything from the receiver's cursor on; return the chain after the last frame.

        Args:
            reader: the open snapshot.
            compression: None: payloads travel as they are.
            page_delta: makes what leaves out unchanged pages, given the most that is compared at
                once in bytes; None: all of the plan is sent.

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
        self._compression = compression
        self._channel.listen(self._take_ack)
        try:
            async with contextlib.aclosing(self._frames(reader, page_delta)) as frames:
                async for frame in frames:
                    await self._send(frame)
                    chain = frame.message.chain
            self._done_bytes = self._plan.total_bytes  # the end may equal the base
        finally:
            self._report(force=True)
        return chain

    def stop_listening(self) -> None:
        """Acknowledgements are of no interest any more: call after COMMITTED."""
        self._channel.listen(None)

    async def _send(self, frame: OutgoingFrame) -> None:
        message = await self._packed(frame.message) if self._is_compressing() else frame.message
        cost_bytes = message.window_cost_bytes
        limits = self._channel.session.limits
        window_bytes = limits.window_bytes if limits else 0
        while self._unacknowledged and self._unacknowledged_bytes + cost_bytes > window_bytes:
            await self._channel.wait_changed()
        now = asyncio.get_running_loop().time
        started = now()
        await self._limiter.take(cost_bytes)
        before = self._channel.sent_bytes
        self._unacknowledged.append((frame.end_bytes, cost_bytes, frame.covered_bytes))
        self._unacknowledged_bytes += cost_bytes
        await self._channel.send(message)
        gone = now()
        self._wire_bytes += self._channel.sent_bytes - before
        self._done_bytes += frame.covered_bytes
        self._choice.note_sent(message.content_bytes, gone - started, gone)
        self._report()

    def _is_compressing(self) -> bool:
        return self._compression is not None and (self._compression.always or self._choice.wanted)

    async def _packed(self, message: Data) -> Data:
        """Return a message with its payload compressed, if that makes it smaller."""
        content = message.payload
        if not content:
            return message
        packed = await self._blocking.run(self._compress, content)
        if len(packed) >= len(content):
            return message
        return replace(message, unpacked_bytes=len(content), payload=memoryview(packed))

    def _compress(self, content: memoryview) -> bytes:
        if self._compressor is None:
            assert self._compression is not None, "without it nothing is to be compressed"
            self._compressor = self._compression.new_compressor()
        return self._compressor.compress(content)

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
        self,
        reader: SnapshotReader,
        page_delta: Callable[[int], PageDelta] | None,
    ) -> AsyncGenerator[OutgoingFrame, None]:
        limits = self._channel.session.limits
        payload_bytes = limits.max_payload_bytes if limits else 0
        builder = await self._blocking.run(
            FrameBuilder,
            skip_before(self._plan, self._ready.cursor_bytes),
            reader,
            payload_bytes,
            _BATCHES_IN_FLIGHT,
            self._ready.chain,
            None if page_delta is None else page_delta(payload_bytes),
        )
        queue: asyncio.Queue[list[OutgoingFrame] | Exception | None] = asyncio.Queue(maxsize=2)
        producer = asyncio.create_task(self._produce(builder, queue))
        try:
            while (batch := await queue.get()) is not None:
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
        queue: asyncio.Queue[list[OutgoingFrame] | Exception | None],
    ) -> None:
        try:
            batch: list[OutgoingFrame] | None = []
            while batch is not None:
                batch = await self._blocking.run(builder.next_batch)
                await queue.put(batch)
        except Exception as error:  # noqa: BLE001 - the consumer raises it, or would wait for ever
            await queue.put(error)
