"""A session ends once, clearly (I10), in bounded memory (I9), whatever peer and clock do."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import (
    BlockrepError,
    ConnectionLostError,
    InternalError,
    InterruptedByUserError,
    NoSpaceError,
    ProtocolError,
    StorageError,
)
from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.frames import FrameType
from blockrep.protocol.limits import MAX_PAYLOAD_BYTES
from blockrep.protocol.messages import (
    Abort,
    Ack,
    Begin,
    Bye,
    Commit,
    Committed,
    Compare,
    Compared,
    Data,
    Hello,
    Message,
    Open,
    Ping,
    Ready,
    Release,
    Welcome,
)
from blockrep.protocol.session import HANDSHAKE_SECONDS, Session
from blockrep.protocol.transitions import Side, State
from support.frame_feeding import deliver, encoded, feed
from support.sessions import VOLUME

ID = "0a" * 16
HELLO = Hello((1, 3), ("zstd", "other"), "test")
WELCOME = Welcome(1, ("zstd",), "test", "origin", 65536, 1 << 20, 5000, 30000)
OPEN = Open("push", "vg/lv", "source")
BEGIN = Begin(ID, ID, 1, 0, "", "full", 1 << 30, 1, 1, 0, bytes(32), 1, allow_shrink=False)
READY = Ready("staging", 4096, bytes(32))
COMPARE = Compare(ID, None, 4096, bytes(8))
COMMIT = Commit(ID, bytes(32))
COMMITTED = Committed(ID, bytes(32), "name", 0)

#: How each state is reached: (sender, message) in order.
GREETED = [("client", HELLO)]
IDLE = [*GREETED, ("server", WELCOME)]
OPENING = [*IDLE, ("client", OPEN)]
OPENED = [*OPENING, ("server", VOLUME)]
BEGINNING = [*OPENED, ("client", BEGIN)]
STREAMING = [*BEGINNING, ("server", READY)]
WAYS: dict[State, list[tuple[str, Message]]] = {
    State.START: [],
    State.GREETED: [*GREETED],
    State.IDLE: [*IDLE],
    State.OPENING: [*OPENING],
    State.OPENED: [*OPENED],
    State.COMPARING: [*OPENED, ("client", COMPARE)],
    State.BEGINNING: [*BEGINNING],
    State.STREAMING: [*STREAMING],
    State.COMMITTING: [*STREAMING, ("client", COMMIT)],
    State.CLOSED: [*IDLE, ("client", Bye())],
}
GARBAGE = b"GET / HTTP/1.1\r\n\r\n" * 8


def zeros(offset_bytes: int, length_bytes: int = 4096) -> Data:
    return Data((Extent(offset_bytes, length_bytes, ExtentKind.ZERO),), bytes(16), bytes(32))


def content(offset_bytes: int, length_bytes: int, unpacked_bytes: int | None = None) -> Data:
    size = unpacked_bytes or length_bytes
    payload = memoryview(bytes(length_bytes))
    return Data((Extent(offset_bytes, size),), bytes(16), bytes(32), unpacked_bytes, payload)


def pair(state: State, welcome: Welcome = WELCOME) -> tuple[Session, Session]:
    """Return client and server in a state, everything sent at time 0."""
    ends = {side.value: Session(side, side.other.value, 0.0) for side in Side}
    for sender, message in WAYS[state]:
        ends[sender].send(welcome if message is WELCOME else message)
        deliver(ends[sender], ends["server" if sender == "client" else "client"])
    client, server = ends["client"], ends["server"]
    assert client.state is server.state is state
    return client, server


def sent_by(session: Session) -> bytes:
    return b"".join(bytes(part) for part in session.data_to_send(0.0))


# A fault of the peer.


@pytest.mark.parametrize("state", [state for state in WAYS if state is not State.CLOSED])
@pytest.mark.parametrize("side", Side)
def test_a_fault_is_one_abort_and_what_follows_is_discarded(state: State, side: Side) -> None:
    client, server = pair(state)
    session, peer = (client, server) if side is Side.CLIENT else (server, client)
    assert feed(session, GARBAGE) == []
    assert isinstance(session.error, ProtocolError)
    assert session.error.where == session.peer
    assert session.state is State.ABORTED
    error = session.error
    abort = sent_by(session)
    assert feed(session, GARBAGE + encoded(*(message for _, message in WAYS[state]))) == []
    session.fail(StorageError("later"))
    session.receive_eof()
    session.handle_timer(1e9)
    assert session.error is error
    assert session.next_deadline() is None
    assert sent_by(session) == b""
    # The peer learns why, and answers nothing.
    assert feed(peer, abort) == []
    assert isinstance(peer.error, ProtocolError)
    assert peer.error.what == error.what
    assert peer.state is State.ABORTED
    assert sent_by(peer) == b""


def test_messages_before_a_fault_that_nobody_took_are_dropped() -> None:
    _, server = pair(State.IDLE)
    assert feed(server, encoded(OPEN) + GARBAGE) == []


def test_bytes_that_arrive_after_the_end_go_to_one_small_buffer() -> None:
    _, server = pair(State.IDLE)
    server.fail(StorageError("broken"))
    assert server.get_buffer().obj is server.get_buffer().obj
    tracemalloc.start()
    try:
        for _ in range(1000):
            server.buffer_updated(len(server.get_buffer()), 0.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_frame_that_may_not_come_now_is_refused_by_its_prefix() -> None:
    _, server = pair(State.START)
    feed(server, encoded(content(0, MAX_PAYLOAD_BYTES))[:16])
    assert isinstance(server.error, ProtocolError)
    assert server.error.what == "DATA is not allowed in state START"


def test_the_receiver_holds_data_to_the_payload_that_it_announced() -> None:
    _, server = pair(State.STREAMING)
    feed(server, encoded(content(4096, WELCOME.max_payload_bytes + 1))[:16])
    assert isinstance(server.error, ProtocolError)
    assert "wrong size" in server.error.what


@pytest.mark.parametrize(
    ("way", "side", "message", "what"),
    [
        (State.GREETED, Side.CLIENT, replace(WELCOME, version=4), "version 4 was not offered"),
        (State.GREETED, Side.CLIENT, replace(WELCOME, version=0), "version 0 was not offered"),
        (
            State.GREETED,
            Side.CLIENT,
            replace(WELCOME, features=("new",)),
            "was not offered",
        ),
        (State.STREAMING, Side.SERVER, zeros(4095), "lies before the position 4096"),
        (State.STREAMING, Side.SERVER, content(4096, 9, 65537), "is above max_payload"),
        (State.STREAMING, Side.CLIENT, Ack(4095, 0), "went backward"),
        (State.STREAMING, Side.CLIENT, Ack(4096, 4095), "went backward"),
        (State.STREAMING, Side.CLIENT, Ack(4097, 4096), "beyond the position 4096"),
        (State.COMMITTING, Side.CLIENT, Ack(8192, 8192), "beyond the position 4096"),
    ],
)
def test_what_contradicts_earlier_frames_is_refused_and_never_sent(
    way: State, side: Side, message: Message, what: str
) -> None:
    client, server = pair(way)
    session, peer = (client, server) if side is Side.CLIENT else (server, client)
    with pytest.raises(InternalError, match=what):
        peer.send(message)
    assert (peer.error, sent_by(peer)) == (None, b"")
    assert feed(session, encoded(message)) == []
    assert isinstance(session.error, ProtocolError)
    assert what in session.error.what


def test_compression_must_have_been_agreed_on() -> None:
    client, server = pair(State.STREAMING, replace(WELCOME, features=()))
    packed = content(4096, 9, 100)
    with pytest.raises(InternalError, match="not agreed on"):
        client.send(packed)
    feed(server, encoded(packed))
    assert isinstance(server.error, ProtocolError)
    client, server = pair(State.STREAMING)
    client.send(packed)
    assert deliver(client, server) == [packed]


def test_positions_advance_with_what_is_sent_and_acknowledged() -> None:
    client, server = pair(State.STREAMING)
    client.send(zeros(4096))
    client.send(zeros(1 << 20))
    assert len(deliver(client, server)) == 2
    end_bytes = (1 << 20) + 4096
    for ack in (Ack(end_bytes, 4096), Ack(end_bytes, 8192), Ack(end_bytes, end_bytes)):
        server.send(ack)
        assert deliver(server, client) == [ack]
    with pytest.raises(InternalError, match="lies before"):
        client.send(zeros(0))


def test_positions_start_anew_with_each_transfer() -> None:
    client, server = pair(State.COMMITTING)
    server.send(COMMITTED)
    deliver(server, client)
    for sender, message in STREAMING[2:]:
        source, target = (client, server) if sender == "client" else (server, client)
        source.send(replace(message, cursor_bytes=0) if isinstance(message, Ready) else message)
        deliver(source, target)
    client.send(zeros(0))
    assert deliver(client, server) == [zeros(0)]


# Our own mistakes.


@pytest.mark.parametrize(
    ("state", "side", "message"),
    [
        (State.START, Side.CLIENT, OPEN),
        (State.START, Side.SERVER, HELLO),
        (State.IDLE, Side.CLIENT, HELLO),
        (State.STREAMING, Side.SERVER, zeros(4096)),
        (State.IDLE, Side.CLIENT, Abort("internal", "use fail()")),
        (State.CLOSED, Side.CLIENT, Ping()),
        (State.IDLE, Side.CLIENT, replace(OPEN, volume="\x1b")),
    ],
)
def test_misuse_raises_and_changes_nothing(state: State, side: Side, message: Message) -> None:
    client, server = pair(state)
    session = client if side is Side.CLIENT else server
    with pytest.raises(InternalError, match=f"{message.TYPE.name} cannot be sent"):
        session.send(message)
    assert (session.state, session.error, sent_by(session)) == (state, None, b"")


def test_nothing_is_sent_after_the_end() -> None:
    client, _ = pair(State.IDLE)
    client.receive_eof()
    with pytest.raises(InternalError):
        client.send(OPEN)


def test_a_wrong_count_is_our_own_mistake() -> None:
    client, _ = pair(State.IDLE)
    with pytest.raises(InternalError):
        client.buffer_updated(10**9, 0.0)


# How it ends.


@pytest.mark.parametrize("state", [state for state in WAYS if state is not State.CLOSED])
@pytest.mark.parametrize("side", Side)
def test_end_of_stream_is_a_lost_connection_in_every_state_but_the_end(
    state: State, side: Side
) -> None:
    session = pair(state)[0 if side is Side.CLIENT else 1]
    session.receive_eof()
    assert isinstance(session.error, ConnectionLostError)
    established = state not in {State.START, State.GREETED}
    assert ("it resumes" in str(session.error)) is established
    assert (session.next_deadline(), sent_by(session)) == (None, b"")


@pytest.mark.parametrize("way", [State.IDLE, State.OPENED])
def test_bye_is_the_orderly_end(way: State) -> None:
    client, server = pair(way)
    client.send(Bye())
    assert deliver(client, server) == [Bye()]
    for session in (client, server):
        assert session.state is State.CLOSED
        session.receive_eof()
        session.connection_lost(ConnectionLostError("reset"))
        session.fail(StorageError("too late"))
        session.handle_timer(1e9)
        assert feed(session, encoded(Ping()) + GARBAGE) == []
        assert (session.error, session.next_deadline(), sent_by(session)) == (None, None, b"")


def test_a_partial_frame_does_not_outlive_bye() -> None:
    client, _ = pair(State.IDLE)
    feed(client, encoded(Ping())[:10])
    client.send(Bye())
    feed(client, encoded(Ping())[10:])
    assert client.error is None


def test_an_error_of_ours_reaches_the_peer_as_it_is_and_as_ours() -> None:
    client, server = pair(State.STREAMING)
    server.fail(NoSpaceError("full", where="pool", safe="kept", next_step="lvextend"))
    assert deliver(server, client) == []
    assert isinstance(client.error, NoSpaceError)
    assert (
        client.error.as_fields()
        == NoSpaceError(
            "full", where=f"{client.peer}: pool", safe="kept", next_step="lvextend"
        ).as_fields()
    )
    client.receive_eof()
    assert isinstance(client.error, NoSpaceError)


def test_an_interrupted_peer_is_a_lost_connection_here() -> None:
    """Only whoever pressed the key ends as interrupted; the other end can resume."""
    client, server = pair(State.STREAMING)
    server.fail(InterruptedByUserError("the peer was interrupted"))
    deliver(server, client)
    assert isinstance(server.error, InterruptedByUserError)
    assert isinstance(client.error, ConnectionLostError)
    assert client.error.what == "the peer was interrupted"
    assert client.error.safe == "what the receiver acknowledged is kept"


def test_messages_before_the_peers_abort_are_not_lost() -> None:
    client, server = pair(State.COMMITTING)
    server.send(COMMITTED)
    server.fail(StorageError("afterwards"))
    assert deliver(server, client) == [COMMITTED]
    assert isinstance(client.error, StorageError)


def test_a_failed_transport_is_told_once() -> None:
    client, _ = pair(State.IDLE)
    error = ConnectionLostError("reset by peer", next_step="see the firewall's log")
    client.connection_lost(error)
    client.connection_lost(ConnectionLostError("again"))
    assert client.error is error


def test_a_lost_connection_says_what_is_safe() -> None:
    client, _ = pair(State.STREAMING)
    client.connection_lost(ConnectionLostError("reset by peer"))
    assert client.error is not None
    assert client.error.what == "reset by peer"
    assert client.error.safe == "what the receiver acknowledged is kept"
    failed, _ = pair(State.STREAMING)
    failed.connection_lost(InternalError("a defect"))
    assert isinstance(failed.error, InternalError)


# Time.


def test_the_handshake_has_a_limit() -> None:
    for state in (State.START, State.GREETED):
        for session in pair(state):
            assert session.next_deadline() == HANDSHAKE_SECONDS
            session.handle_timer(HANDSHAKE_SECONDS - 0.001)
            assert session.next_deadline() == HANDSHAKE_SECONDS
            session.handle_timer(HANDSHAKE_SECONDS)
            assert isinstance(session.error, ConnectionLostError)
            assert "handshake" in session.error.what
            assert sent_by(session) == b""


def test_the_limit_of_the_handshake_can_be_set_and_bytes_do_not_move_it() -> None:
    server = Session(Side.SERVER, "peer", 100.0, handshake_seconds=3.0)
    feed(server, encoded(HELLO)[:20], now=102.0)
    assert server.next_deadline() == 103.0


def test_a_sign_of_life_is_sent_once_an_interval_and_changes_no_state() -> None:
    client, server = pair(State.OPENED)
    assert client.next_deadline() == 5.0
    client.handle_timer(4.999)
    assert sent_by(client) == b""
    client.handle_timer(5.0)
    assert deliver(client, server, now=5.0) == []
    assert client.next_deadline() == 10.0
    assert server.state is State.OPENED


def test_whatever_is_sent_is_a_sign_of_life() -> None:
    client, _ = pair(State.IDLE)
    client.send(OPEN)
    client.data_to_send(4.0)
    assert client.next_deadline() == 9.0
    client.data_to_send(6.0)  # nothing to send: no sign of life
    assert client.next_deadline() == 9.0


def test_signs_of_life_do_not_pile_up_while_the_transport_takes_nothing() -> None:
    client, _ = pair(State.IDLE)
    for second in range(5, 1000, 5):
        feed(client, encoded(Ping()), now=float(second))
        client.handle_timer(float(second))
    assert sent_by(client) == encoded(Ping())


def test_a_silent_peer_is_dead_after_the_announced_time() -> None:
    client, _ = pair(State.STREAMING)
    client.handle_timer(5.0)
    client.handle_timer(29.999)
    assert client.next_deadline() == 30.0
    client.handle_timer(30.0)
    assert isinstance(client.error, ConnectionLostError)
    assert client.error.what == "nothing was heard from the peer for 30 seconds"


def test_any_byte_is_a_sign_of_life_of_the_peer() -> None:
    client, _ = pair(State.STREAMING)
    feed(client, encoded(Ping())[:1], now=29.0)
    client.handle_timer(58.9)
    assert client.error is None
    client.handle_timer(59.0)
    assert client.error is not None


def test_time_in_which_nobody_read_is_not_the_peers_silence() -> None:
    client, _ = pair(State.STREAMING)
    client.reading_resumed(1000.0)
    client.handle_timer(1029.9)
    assert client.error is None


# Anything at all.


def tear_down(session: Session) -> None:
    assert session.error is None or isinstance(session.error, BlockrepError)
    aborts = sent_by(session).count(b"BRP1" + bytes([FrameType.ABORT, 0]))
    assert aborts <= 1


@given(
    st.sampled_from(sorted(WAYS, key=lambda state: state.value)),
    st.sampled_from(Side),
    st.binary(max_size=300),
    st.lists(st.integers(1, 30), max_size=20),
)
def test_random_bytes_only_ever_become_the_sessions_error(
    state: State, side: Side, junk: bytes, sizes: list[int]
) -> None:
    session = pair(state)[0 if side is Side.CLIENT else 1]
    feed(session, junk, sizes=sizes)
    if len(junk) >= 16 and state is not State.CLOSED:
        assert isinstance(session.error, ProtocolError)
    tear_down(session)


CONVERSATION = [
    *STREAMING,
    ("client", content(4096, 65536)),
    ("server", Ack(69632, 4096)),
    ("client", COMMIT),
    ("server", COMMITTED),
    ("client", OPEN),
    ("server", VOLUME),
    ("client", COMPARE),
    ("server", Compared(0)),
    ("client", Release()),
    ("client", Bye()),
]


@given(st.lists(st.integers(1, 3000), max_size=300))
def test_any_segmentation_is_the_same_conversation(sizes: list[int]) -> None:
    ends = {side.value: Session(side, side.other.value, 0.0) for side in Side}
    cuts = iter(sizes)
    for sender, message in CONVERSATION:
        ends[sender].send(message)
        receiver = ends["server" if sender == "client" else "client"]
        assert feed(receiver, sent_by(ends[sender]), sizes=cuts) == [message]
    assert all(end.state is State.CLOSED and end.error is None for end in ends.values())


@pytest.mark.parametrize("payload_bytes", [1 << 22, (1 << 32) - 1])
@pytest.mark.parametrize("frame_type", [0x04, 0x07, 0x0C, 0x0F, 0x7F, 0x80])
@pytest.mark.parametrize("state", WAYS)
def test_memory_stays_bounded_whatever_lengths_are_claimed(
    state: State, frame_type: int, payload_bytes: int
) -> None:
    prefix = b"BRP1" + bytes([frame_type, 0, 0x40, 0]) + payload_bytes.to_bytes(4, "big") + bytes(4)
    sessions = pair(state)
    tracemalloc.start()
    try:
        for session in sessions:
            feed(session, prefix + bytes(20_000))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 19
    if state is not State.CLOSED:
        assert all(isinstance(session.error, ProtocolError) for session in sessions)


def test_the_shells_allocator_is_used_for_payloads() -> None:
    sizes: list[int] = []

    def allocate(size_bytes: int) -> memoryview:
        sizes.append(size_bytes)
        return memoryview(bytearray(size_bytes))

    allocator: Callable[[int], memoryview] = allocate
    server = Session(Side.SERVER, "peer", 0.0, allocator)
    for sender, message in STREAMING:
        if sender == "client":
            feed(server, encoded(message))
        else:
            server.send(message)
    feed(server, encoded(content(4096, 5000)))
    assert sizes == [5000]
