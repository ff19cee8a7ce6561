"""One connection's protocol state, without I/O: bytes and time in, messages and bytes out.

The shell around it does four things, in any order::

    buffer = session.get_buffer()                      # what arrived
    session.buffer_updated(<receive into buffer>, now)     or session.receive_eof()
    for message in session.messages(): ...

    session.send(message)                              # what leaves
    <send session.data_to_send(now)>

    <at session.next_deadline()>: session.handle_timer(now)    # heartbeats, dead peer

A fault of the peer never raises: it becomes :attr:`Session.error` and one ABORT in the outgoing
bytes, after which everything that arrives is discarded. Our own misuse raises ``InternalError``.
Times are seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from blockrep.errors import (
    BlockrepError,
    ConnectionLostError,
    InternalError,
    InterruptedByUserError,
    ProtocolError,
)
from blockrep.protocol.frames import FrameReader, FrameType, allocate_payload
from blockrep.protocol.messages import (
    Abort,
    Ack,
    Data,
    Hello,
    Message,
    Ping,
    Pull,
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
        handshake_seconds: how long HELLO and WELCOME may take together.

    Attributes:
        state: where the protocol is.
        turned: PULL was sent: the server now does what the client did, and the other way round.
        error: why the session is over; None while it is not, and after BYE.
        limits: what WELCOME said, and after it PULL; None before it.
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
        self.turned = False
        self.error: BlockrepError | None = None
        self.limits: Welcome | None = None
        self._hello: Hello | None = None
        self._reader = FrameReader(allocate, self._admit)
        self._discarded = bytearray()
        self._incoming: deque[Message] = deque()
        self._outgoing: list[bytes | memoryview] = []
        self._last_received = now
        self._last_sent = now
        self._handshake_deadline = now + handshake_seconds
        self._data_position = 0
        self._ack = Ack(0, 0)

    def _next_state(self, frame_type: FrameType, sender: Side) -> State | None:
        """Ask the transition table, in which the sides change places once, with PULL."""
        if not self.turned:
            return next_state(self.state, frame_type, sender)
        if frame_type is FrameType.PULL:
            return None
        return next_state(self.state, frame_type, sender.other)

    @property
    def _is_over(self) -> bool:
        return self.error is not None or self.state is State.CLOSED

    # Bytes in.

    def get_buffer(self) -> memoryview:
        """Return where the next received bytes go; never empty."""
        if self._is_over:
            if not self._discarded:
                self._discarded = bytearray(_DISCARD_BYTES)
            return memoryview(self._discarded)
        return self._reader.get_buffer()

    def buffer_updated(self, count: int, now: float) -> None:
        """Take note that ``count`` bytes, at least one, were received into the buffer."""
        self._last_received = now
        if self._is_over:
            return
        try:
            frame = self._reader.buffer_updated(count)
            if frame is not None:
                self._receive(message_from(frame))
        except ProtocolError as error:
            next_step = "check that both hosts run blockrep"
            self.fail(ProtocolError(error.what, where=self.peer, next_step=next_step))

    def receive_eof(self) -> None:
        """Take note that the peer closed the stream."""
        self.connection_lost(self._lost("the connection ended"))

    def connection_lost(self, error: BlockrepError) -> None:
        """Take note that the transport failed; a lost connection is told with what is safe."""
        if self._is_over:
            return
        plain = isinstance(error, ConnectionLostError) and error.next_step is None
        self.error = self._lost(error.what) if plain else error

    def _lost(self, what: str) -> BlockrepError:
        if self.limits is None:
            return ConnectionLostError(
                f"{what} before the session was established",
                where=self.peer,
                safe="nothing was changed",
                next_step="see the log of the other host",
            )
        return ConnectionLostError(
            what,
            where=self.peer,
            safe="what the receiver acknowledged is kept",
            next_step="run the same push again: it resumes",
        )

    def _admit(self, frame_type: FrameType) -> None:
        """Refuse a frame that may not come now, before memory is spent on it."""
        if self._next_state(frame_type, self.side.other) is None:
            raise ProtocolError(f"{frame_type.name} is not allowed in state {self.state.value}")

    def _receive(self, message: Message) -> None:
        state = self._next_state(message.TYPE, self.side.other)
        assert state is not None, "nothing we can send since its prefix came forbids a frame"
        if isinstance(message, Abort):
            self.state = state
            error = message.to_error()
            # What lacks there need not lack here: the user must see whose words these are.
            error.where = f"{self.peer}: {error.where}" if error.where else self.peer
            # Whoever interrupted the peer did not interrupt us: here a connection was lost.
            interrupted = isinstance(error, InterruptedByUserError)
            self.error = self._lost(error.what) if interrupted else error
            return
        try:
            self._relate(message)
        except ValueError as error:
            raise ProtocolError(f"{message.TYPE.name}: {error}") from error
        self.state = state
        if not isinstance(message, Ping):
            self._incoming.append(message)

    # What one frame must have to do with those before it, whoever sends it.

    def _relate(self, message: Message) -> None:
        """Check a message against those before it; remember what later ones depend on.

        Raises:
            ValueError: it contradicts them; nothing was remembered.
        """
        if isinstance(message, Hello):
            self._hello = message
        elif isinstance(message, Welcome):
            _check_welcome(message, self._hello)
            self.limits = message
            self._reader.max_data_payload_bytes = message.max_payload_bytes
        elif isinstance(message, Pull):
            self._turn(message)
        elif isinstance(message, Ready):
            self._data_position = message.cursor_bytes
            self._ack = Ack(message.cursor_bytes, message.cursor_bytes)
        elif isinstance(message, Data):
            _check_data(message, self._data_position, self.limits)
            self._data_position = message.segments[-1].end_bytes
        elif isinstance(message, Ack):
            _check_ack(message, self._ack, self._data_position)
            self._ack = message

    def _turn(self, pull: Pull) -> None:
        assert self.limits is not None, "the state machine lets WELCOME come first"
        self.turned = True
        self.limits = replace(
            self.limits,
            max_payload_bytes=pull.max_payload_bytes,
            window_bytes=pull.window_bytes,
        )
        self._reader.max_data_payload_bytes = pull.max_payload_bytes

    # Messages in and out.

    def messages(self) -> list[Message]:
        """Return, and forget, the messages that arrived; PING and ABORT are not among them."""
        arrived = list(self._incoming)
        self._incoming.clear()
        return arrived

    def send(self, message: Message) -> None:
        """Queue a message. An error of ours is sent by :meth:`fail` instead.

        Raises:
            InternalError: the protocol does not allow it in this state, or after what was sent
                before, or it exceeds a limit.
        """
        state = self._next_state(message.TYPE, self.side)
        if state is None or self.error is not None or isinstance(message, Abort):
            sender = f"by the {self.side.value} in state {self.state.value}"
            raise InternalError(f"{message.TYPE.name} cannot be sent {sender}")
        try:
            buffers = encode_message(message)
            self._relate(message)
        except ValueError as error:
            raise InternalError(f"{message.TYPE.name} cannot be sent: {error}") from error
        self._outgoing += buffers
        self.state = state

    def fail(self, error: BlockrepError) -> None:
        """End the session with one ABORT; the first error counts, later ones are ignored."""
        if self._is_over:
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
        if self._is_over:
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
        if self._is_over:
            return
        if self.limits is None:
            if now >= self._handshake_deadline:
                self.error = self._lost("the time for the handshake ran out")
            return
        if now >= self._peer_dead(self.limits):
            seconds = self.limits.timeout_milliseconds / 1000
            self.error = self._lost(f"nothing was heard from the peer for {seconds:g} seconds")
        elif now >= self._heartbeat_due(self.limits):
            # While the transport takes nothing, one sign of life in the queue is enough.
            if not self._outgoing:
                self.send(Ping())
            self._last_sent = now

    def reading_resumed(self, now: float) -> None:
        """Take note that the shell did not read: that time is not the peer's silence."""
        self._last_received = now


def _check_welcome(welcome: Welcome, hello: Hello | None) -> None:
    assert hello is not None, "the state machine lets HELLO come first"
    if not hello.versions[0] <= welcome.version <= hello.versions[1]:
        raise ValueError(f"version {welcome.version} was not offered")
    if not set(welcome.features) <= set(hello.features):
        raise ValueError("a feature was not offered")


def _check_data(data: Data, position_bytes: int, limits: Welcome | None) -> None:
    assert limits is not None, "the state machine lets WELCOME come first"
    if data.segments[0].offset_bytes < position_bytes:
        offset_bytes = data.segments[0].offset_bytes
        raise ValueError(f"offset {offset_bytes} lies before the position {position_bytes}")
    if max(data.content_bytes, len(data.payload)) > limits.max_payload_bytes:
        raise ValueError(f"content of {data.content_bytes} bytes is above max_payload")
    if data.unpacked_bytes is not None and "zstd" not in limits.features:
        raise ValueError("compressed, which was not agreed on")


def _check_ack(ack: Ack, before: Ack, position_bytes: int) -> None:
    if ack.received_bytes < before.received_bytes or ack.durable_bytes < before.durable_bytes:
        raise ValueError("a position went backward")
    if ack.received_bytes > position_bytes:
        raise ValueError(f"'received' is beyond the position {position_bytes} of what was sent")
