"""One connection's protocol state, without I/O: bytes and time in, messages and bytes out.

The shell around it does four things, in any order::

    buffer = session.get_buffer(); n = <receive into buffer>; session.buffer_updated(n, now)     # or receive_eof()
    for message in session.messages(): ...                                                       # what arrived
    session.send(message); <send session.data_to_send(now)>                                      # what leaves
    <at session.next_deadline()>: session.handle_timer(now)                                      # heartbeats, dead peer

A fault of the peer never raises: it becomes :attr:`Session.error` and one ABORT in the outgoing bytes, after which everything that
arrives is discarded. Our own misuse raises ``InternalError``. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from blockrep.errors import BlockrepError, ConnectionLostError, InternalError, ProtocolError
from blockrep.protocol.frames import FrameReader, allocate_payload
from blockrep.protocol.limits import MAX_SEGMENTS
from blockrep.protocol.messages import (
    Abort,
    Ack,
    Data,
    Hello,
    Message,
    Ping,
    Ready,
    Welcome,
    encode_message,
    message_from,
)
from blockrep.protocol.transitions import Side, State, next_state

__all__ = ["HANDSHAKE_SECONDS", "Session"]

HANDSHAKE_SECONDS = 10.0
_DISCARD_BYTES = 64 * 1024


class Session:
    """State of one connection.

    Args:
        side: whether we dialled or listen.
        peer: how errors call the other host.
        now: time at which the connection came to be, seconds.
        allocate: returns a writable buffer for a payload of the given size.
        handshake_seconds: how long HELLO and WELCOME may take.
    """

    def __init__(
        self,
        side: Side,
        peer: str,
        now: float,
        allocate: Callable[[int], memoryview] = allocate_payload,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self.side = side
        self.peer = peer
        self.state = State.START
        self.error: BlockrepError | None = None
        self.limits: Welcome | None = None
        self._hello: Hello | None = None
        self._reader = FrameReader(allocate)
        self._discarded = bytearray(0)
        self._incoming: deque[Message] = deque()
        self._outgoing: list[bytes | memoryview] = []
        self._last_received = now
        self._last_sent = now
        self._handshake_deadline = now + handshake_seconds
        self._data_position = 0
        self._ack = Ack(0, 0)

    # Bytes in.

    def get_buffer(self) -> memoryview:
        """Return where the next received bytes go; never empty."""
        if self.error is not None:
            if not self._discarded:
                self._discarded = bytearray(_DISCARD_BYTES)
            return memoryview(self._discarded)
        return self._reader.get_buffer()

    def buffer_updated(self, count: int, now: float) -> None:
        """Take note that ``count`` bytes were received into the buffer."""
        self._last_received = now
        if self.error is not None:
            return
        try:
            frame = self._reader.buffer_updated(count)
            if frame is not None:
                self._receive(message_from(frame))
        except ProtocolError as error:
            self.fail(ProtocolError(error.what, where=self.peer, next_step="check that both hosts run blockrep"))

    def receive_eof(self) -> None:
        """Take note that the peer closed the stream."""
        if self.error is None and self.state is not State.CLOSED:
            self.error = self._lost("the connection ended")

    def connection_lost(self, error: BlockrepError) -> None:
        """Take note that the transport failed."""
        if self.error is None and self.state is not State.CLOSED:
            self.error = error

    def _lost(self, what: str) -> BlockrepError:
        return ConnectionLostError(
            what,
            where=self.peer,
            safe="what the receiver acknowledged is kept",
            next_step="run the same push again: it resumes",
        )

    def _receive(self, message: Message) -> None:
        state = next_state(self.state, message.TYPE, self.side.other)
        if state is None:
            msg = f"{message.TYPE.name} is not allowed in state {self.state.value}"
            raise ProtocolError(msg)
        if isinstance(message, Abort):
            self.state = State.ABORTED
            self.error = message.to_error()
            return
        self._check_received(message)
        self.state = state
        if not isinstance(message, Ping):
            self._incoming.append(message)

    def _check_received(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._hello = message
        elif isinstance(message, Welcome):
            self._check_welcome(message)
            self.limits = message
        elif isinstance(message, Data):
            self._data_position = _check_order(message, self._data_position)
        elif isinstance(message, Ack):
            if message.received_bytes < self._ack.received_bytes or message.durable_bytes < self._ack.durable_bytes:
                msg = "ACK: a position went backward"
                raise ProtocolError(msg)
            self._ack = message
        elif isinstance(message, Ready):
            self._start_stream(message)

    def _check_welcome(self, welcome: Welcome) -> None:
        hello = self._hello
        if hello is None:
            msg = "WELCOME before HELLO was sent"
            raise InternalError(msg)
        if not hello.versions[0] <= welcome.version <= hello.versions[1]:
            msg = f"WELCOME: version {welcome.version} was not offered"
            raise ProtocolError(msg)
        if not set(welcome.features) <= set(hello.features):
            msg = "WELCOME: a feature was not offered"
            raise ProtocolError(msg)

    def _start_stream(self, ready: Ready) -> None:
        self._data_position = ready.cursor_bytes
        self._ack = Ack(ready.cursor_bytes, ready.cursor_bytes)

    # Messages in and out.

    def messages(self) -> list[Message]:
        """Return, and forget, the messages that arrived since the last call; PING and ABORT are not among them."""
        arrived = list(self._incoming)
        self._incoming.clear()
        return arrived

    def send(self, message: Message) -> None:
        """Queue a message.

        Raises:
            InternalError: the protocol does not allow it in this state, or it exceeds a limit.
        """
        state = next_state(self.state, message.TYPE, self.side)
        if state is None or self.state is State.ABORTED:
            msg = f"{message.TYPE.name} cannot be sent by the {self.side.value} in state {self.state.value}"
            raise InternalError(msg)
        if isinstance(message, Hello):
            self._hello = message
        elif isinstance(message, Welcome):
            self.limits = message
            self._reader.max_data_payload_bytes = message.max_payload_bytes
        elif isinstance(message, Ready):
            self._start_stream(message)
        elif isinstance(message, Data) and len(message.segments) > MAX_SEGMENTS:
            msg = f"a DATA frame of {len(message.segments)} segments"
            raise InternalError(msg)
        try:
            self._outgoing += encode_message(message)
        except ValueError as error:
            raise InternalError(str(error)) from error
        self.state = state

    def fail(self, error: BlockrepError) -> None:
        """End the session with one ABORT; the first error counts, later ones are ignored."""
        if self.error is not None or self.state in {State.ABORTED, State.CLOSED}:
            return
        self.error = error
        self.state = State.ABORTED
        self._incoming.clear()
        self._outgoing += encode_message(Abort.from_error(error))

    def data_to_send(self, now: float) -> list[bytes | memoryview]:
        """Return, and forget, the buffers to send, in order."""
        if not self._outgoing:
            return []
        buffers, self._outgoing = self._outgoing, []
        self._last_sent = now
        return buffers

    # Time.

    def next_deadline(self) -> float | None:
        """Return when :meth:`handle_timer` is due, seconds; None once the session is over."""
        if self.error is not None or self.state is State.CLOSED:
            return None
        if self.limits is None:
            return self._handshake_deadline
        return min(self._heartbeat_due(self.limits), self._peer_dead(self.limits))

    def _heartbeat_due(self, limits: Welcome) -> float:
        return self._last_sent + limits.heartbeat_milliseconds / 1000

    def _peer_dead(self, limits: Welcome) -> float:
        return self._last_received + limits.timeout_milliseconds / 1000

    def handle_timer(self, now: float) -> None:
        """Send a heartbeat that is due; give up on a peer that is silent for too long."""
        if self.error is not None or self.state is State.CLOSED:
            return
        if self.limits is None:
            if now >= self._handshake_deadline:
                self.error = self._lost("the peer did not complete the handshake in time")
            return
        if now >= self._peer_dead(self.limits):
            seconds = self.limits.timeout_milliseconds // 1000
            self.error = self._lost(f"nothing was heard from the peer for {seconds} seconds")
        elif now >= self._heartbeat_due(self.limits):
            self.send(Ping())
            self._last_sent = now  # one for each interval, also while the transport takes nothing

    def reading_resumed(self, now: float) -> None:
        """Take note that the shell did not read for a while: that time does not count as the peer's silence."""
        self._last_received = now


def _check_order(message: Data, position: int) -> int:
    first = message.segments[0]
    if first.offset_bytes < position:
        msg = f"DATA: offset {first.offset_bytes} lies before the position {position}"
        raise ProtocolError(msg)
    return message.segments[-1].end_bytes
