"""A session over a transport: one task reads, one keeps time, senders share a lock.

Received payloads live in buffers of a pool with a fixed budget: while the budget is spent the
channel does not read, which is the
backpressure that TCP passes on to the peer (I9). Whoever takes a message with a payload gives the
payload back by :meth:`Channel.release`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Self, TypeVar

from blockrep.errors import BlockrepError, InternalError, InterruptedByUserError, ProtocolError
from blockrep.protocol.limits import MAX_PAYLOAD_BYTES
from blockrep.protocol.messages import Message
from blockrep.protocol.session import HANDSHAKE_SECONDS, Session
from blockrep.protocol.transitions import Side, State
from blockrep.transport.interface import Transport

__all__ = ["Channel"]

_CLOSE_SECONDS = 5.0
_MAX_ARRIVED_MESSAGES = 64
_MIN_BUFFER_BYTES = 2 * MAX_PAYLOAD_BYTES

M = TypeVar("M", bound=Message)


class _BufferPool:
    """Reused payload buffers within a budget.

    A request is always served; the budget says when to stop reading.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._free: list[bytearray] = []

    @property
    def has_room(self) -> bool:
        return self._used_bytes < self._budget_bytes

    def allocate(self, size_bytes: int) -> memoryview:
        # Buffers are as large as the largest request so far: sizes of one transfer hardly vary.
        buffer = self._free.pop() if self._free else bytearray(size_bytes)
        if len(buffer) < size_bytes:
            buffer = bytearray(size_bytes)
        self._used_bytes += len(buffer)
        return memoryview(buffer)[:size_bytes]

    def release(self, payload: memoryview) -> None:
        buffer = payload.obj
        payload.release()
        if not isinstance(buffer, bytearray):
            return
        self._used_bytes -= len(buffer)
        self._free.append(buffer)


class Channel:
    """Sends and receives messages.

    An async context manager that ends the session cleanly or by ABORT.

    Args:
        transport: an established stream; closed on exit.
        side: who we are.
        buffer_bytes: budget for received payloads.
        handshake_seconds: limit for HELLO and WELCOME.
    """

    def __init__(
        self,
        transport: Transport,
        side: Side,
        *,
        buffer_bytes: int = 16 * 1024 * 1024,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._pool = _BufferPool(max(buffer_bytes, _MIN_BUFFER_BYTES))
        self.session = Session(
            side, transport.peer.address, self._loop.time(), self._pool.allocate, handshake_seconds
        )
        self._arrived: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._timer_changed = asyncio.Event()
        self._send_lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._pulse: asyncio.Task[None] | None = None
        self._listener: Callable[[Message], bool] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._reading_paused = False
        self._timed = False
        self._finishing = False
        self.sent_bytes = 0

    @property
    def peer_address(self) -> str:
        """How errors and logs call the peer."""
        return self._transport.peer.address

    async def __aenter__(self) -> Self:
        """Start reading and keeping time."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._keep_time())]
        return self

    async def __aexit__(
        self, _type: object, error: BaseException | None, _traceback: object
    ) -> None:
        """Tell the peer why we end, if we do so early; close the transport."""
        reader, timer = self._tasks
        timer.cancel()
        if error is not None:
            self.session.fail(_as_blockrep_error(error))
        if not self._finishing:
            reader.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._finish()
        await self._transport.close()
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)

    def listen(self, listener: Callable[[Message], bool] | None) -> None:
        """Have ``listener`` see each message as it arrives; True means that it took it."""
        self._listener = listener

    async def send(self, message: Message) -> None:
        """Send a message; its payload may be reused when this returns.

        Raises:
            BlockrepError: the session ended; whatever ended it.
        """
        self._raise_error()
        async with self._send_lock:
            self._raise_error()
            self.session.send(message)
            await self._send_queued()
        self._note_limits()

    async def receive(self, expected: type[M]) -> M:
        """Return the next message, which must be of the expected class.

        Raises:
            ProtocolError: it is another one.
            BlockrepError: the session ended; whatever ended it.
        """
        message = await self.receive_any()
        if not isinstance(message, expected):
            error = ProtocolError(
                f"{message.TYPE.name} came where {expected.TYPE.name} was expected",
                where=self.peer_address,
            )
            self.session.fail(error)
            raise error
        return message

    async def receive_any(self) -> Message:
        """Return the next message. Raises BlockrepError when the session ended."""
        while not self._arrived:
            self._raise_error()
            if self.session.state is State.CLOSED:
                msg = "a message was awaited after BYE"
                raise InternalError(msg)
            self._changed.clear()
            await self._changed.wait()
        message = self._arrived.popleft()
        self._update_room()
        return message

    async def wait_changed(self) -> None:
        """Wait until something arrived, also if a listener took it.

        Raises BlockrepError when the session ended.
        """
        self._raise_error()
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()

    def peek(self) -> Message | None:
        """Return the message that :meth:`receive_any` would return at once, if there is one."""
        return self._arrived[0] if self._arrived else None

    async def wait_message(self, timeout_seconds: float) -> bool:
        """Wait until a message has arrived or the session ended.

        False if neither happened in time.
        """
        if self._arrived or self.session.error is not None:
            return True
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        return bool(self._arrived) or self.session.error is not None

    def release(self, payload: memoryview) -> None:
        """Give the payload of a received message back to the pool.

        It must not be touched any more.
        """
        self._pool.release(payload)
        self._update_room()

    def fail(self, error: BlockrepError) -> None:
        """End the session with an error of ours; whoever works with it is still to be cancelled.

        What arrived and was not taken is not acted upon any more.
        """
        self.session.fail(error)
        self._arrived.clear()
        self._changed.set()

    def _raise_error(self) -> None:
        if self.session.error is not None:
            raise self.session.error

    async def _read(self) -> None:
        try:
            while self.session.error is None and self.session.state is not State.CLOSED:
                if not self._room.is_set():
                    await self._await_room()
                count = await self._transport.receive_into(self.session.get_buffer())
                if count == 0:
                    self.session.receive_eof()
                    break
                self.session.buffer_updated(count, self._loop.time())
                self._take_messages()
        except BlockrepError as error:
            self.session.connection_lost(error)
        except Exception as error:
            self.session.fail(InternalError(f"receiving failed because of a defect: {error!r}"))
            raise
        finally:
            self._changed.set()
            self._timer_changed.set()
        if self.session.error is not None:
            await self._finish()

    def _update_room(self) -> None:
        # Messages are counted too: a frame without payload still costs its unpacked header.
        if self._pool.has_room and len(self._arrived) < _MAX_ARRIVED_MESSAGES:
            self._room.set()
        else:
            self._room.clear()

    def _note_limits(self) -> None:
        """Once WELCOME is known, other deadlines hold: have the clock task look again."""
        if not self._timed and self.session.limits is not None:
            self._timed = True
            self._timer_changed.set()

    async def _await_room(self) -> None:
        self._reading_paused = True
        try:
            await self._room.wait()
        finally:
            self._reading_paused = False
            self.session.reading_resumed(self._loop.time())

    def _take_messages(self) -> None:
        for message in self.session.messages():
            if self._listener is None or not self._listener(message):
                self._arrived.append(message)
            self._changed.set()
        self._update_room()
        self._note_limits()

    async def _finish(self) -> None:
        """Send the ABORT that is queued, if any, and see it off; free sends that the peer blocks.

        Whoever sent ABORT goes on reading until the peer closes, in bounded time: closing with
        unread bytes resets the connection, and the peer would never learn why.
        """
        if self._finishing or self.session.error is None:
            return
        self._finishing = True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if await self._flush():
                    while await self._transport.receive_into(self.session.get_buffer()):
                        pass
        except BlockrepError:
            pass
        except TimeoutError:
            self._transport.abort()

    async def _keep_time(self) -> None:
        while (deadline := self.session.next_deadline()) is not None:
            self._timer_changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._timer_changed.wait()
                    continue
            if self._reading_paused:
                self.session.reading_resumed(self._loop.time())
            self.session.handle_timer(self._loop.time())
            if self.session.error is not None:
                self._changed.set()
                self._transport.abort()
                return
            if not self._send_lock.locked():
                # Not awaited: a peer that takes nothing must not stop the clock that finds it dead.
                self._pulse = asyncio.create_task(self._send_heartbeat())

    async def _send_heartbeat(self) -> None:
        with contextlib.suppress(BlockrepError):
            await self._flush()

    async def _flush(self) -> bool:
        """Send what is queued; whether there was anything."""
        async with self._send_lock:
            return await self._send_queued()

    async def _send_queued(self) -> bool:
        buffers = self.session.data_to_send(self._loop.time())
        if not buffers:
            return False
        self.sent_bytes += sum(len(buffer) for buffer in buffers)
        try:
            await self._transport.send(buffers)
            return True
        except BlockrepError as error:
            # The peer's ABORT may be on its way: what it says explains more than a broken pipe.
            await self._await_reader()
            self.session.connection_lost(error)
            self._changed.set()
            raise self.session.error or error from error

    async def _await_reader(self) -> None:
        reader = self._tasks[0] if self._tasks else None
        if reader is None or reader is asyncio.current_task() or reader.done():
            return
        await asyncio.wait([reader], timeout=1.0)


def _as_blockrep_error(error: BaseException) -> BlockrepError:
    if isinstance(error, BlockrepError):
        return error
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return InterruptedByUserError(
            "the peer was interrupted",
            safe="what the receiver acknowledged is kept",
            next_step="run the same push again: it resumes",
        )
    return InternalError("the peer failed because of a defect", next_step="see its log")
