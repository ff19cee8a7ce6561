"""Feeds sessions with random, mutated and misplaced frames and holds them to their promises.

    PYTHONPATH=tests python tests/fuzz/fuzz_session.py [--seed N] [--frames N] [--seconds S]

Whatever arrives: nothing is raised; a fault is one ABORT and ``Session.error``; what follows it is
discarded; what a session holds in memory stays within the limits of the norm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import xxhash

from blockrep.errors import BlockrepError, InternalError, ProtocolError
from blockrep.protocol.frames import Frame, FrameReader, FrameType
from blockrep.protocol.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from blockrep.protocol.messages import Message, message_from
from blockrep.protocol.session import Session
from blockrep.protocol.transitions import Side, State, next_state
from support.reports import record

VECTORS = Path(__file__).resolve().parents[2] / "proto" / "vectors"
VALUES = (None, True, -1, 0, 1, 4096, 2**31, 2**63 - 1, 2**63, 2**64 - 1, "", "x", b"", bytes(16))


class Corpus:
    """Frames and the ways into every state, from the vectors."""

    def __init__(self) -> None:
        transcripts = json.loads((VECTORS / "transcripts.json").read_text())
        frames = json.loads((VECTORS / "frames.json").read_text())
        invalid = json.loads((VECTORS / "invalid.json").read_text())
        self.conversations: list[list[dict[str, Any]]] = [
            connection["steps"]
            for transcript in transcripts
            for connection in transcript["connections"]
        ]
        vectors = [*frames["frames"], *frames["decode_only"], *frames["ignored"], *invalid]
        self.frames = [bytes.fromhex(one["hex"]) for one in vectors]
        self.by_type: dict[FrameType, list[bytes]] = {one: [] for one in FrameType}
        for step in (*frames["frames"], *(step for steps in self.conversations for step in steps)):
            self.by_type[FrameType[step["frame"]]].append(bytes.fromhex(step["hex"]))


def with_check(frame: bytearray) -> bytes:
    """Return the frame with the right check, so that a change gets past it."""
    header_bytes = int.from_bytes(frame[6:8], "big")
    checked = bytes(frame[:12]) + bytes(frame[16 : 16 + header_bytes])
    frame[12:16] = (xxhash.xxh3_64_intdigest(checked) & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(frame)


def mutate(frame: bytes, rng: random.Random) -> bytes:
    """Return a frame that is somehow not what it was; often with a right check."""
    changed = bytearray(frame)
    way = rng.randrange(6)
    if way == 0 and len(changed) > 16:
        return with_check(_with_other_value(changed, rng))
    if way == 1:
        del changed[rng.randrange(len(changed)) :]
        return bytes(changed)
    if way == 2:
        at = rng.randrange(len(changed))
        changed[at:at] = rng.randbytes(rng.randrange(1, 20))
        return bytes(changed)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return with_check(changed) if way < 5 and len(changed) >= 16 else bytes(changed)


def _with_other_value(frame: bytearray, rng: random.Random) -> bytearray:
    """Return the frame with one key of its header given another value, or gone, or added."""
    header_bytes = int.from_bytes(frame[6:8], "big")
    try:
        header = msgpack.unpackb(bytes(frame[16 : 16 + header_bytes]))
    except (ValueError, msgpack.UnpackException):
        return frame
    if not isinstance(header, dict) or not header:
        return frame
    key = rng.choice([*header, "unknown"])
    if rng.random() < 0.2:
        header.pop(key, None)
    else:
        header[key] = rng.choice(VALUES)
    packed = msgpack.packb(header)[:65535]
    start = frame[:6] + len(packed).to_bytes(2, "big") + frame[8:16]
    return bytearray(start + packed + frame[16 + header_bytes :])


def message_of(content: bytes) -> Message:
    """Return the message of one valid frame."""
    reader, rest = FrameReader(), memoryview(content)
    frame: Frame | None = None
    while rest:
        place = reader.get_buffer()
        count = min(len(place), len(rest))
        place[:count] = rest[:count]
        rest = rest[count:]
        frame = reader.buffer_updated(count)
    assert frame is not None
    return message_from(frame)


class Fuzzer:
    """Runs sessions until enough frames have been fed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.corpus = Corpus()
        self.frames = 0
        self.sessions = 0
        self.refused = 0
        self.taken = 0
        self.allocated_bytes = 0

    def _allocate(self, size_bytes: int) -> memoryview:
        assert size_bytes <= MAX_PAYLOAD_BYTES
        self.allocated_bytes = max(self.allocated_bytes, size_bytes)
        return memoryview(bytearray(size_bytes))

    def run_session(self) -> None:
        """Bring a session into some state, then feed it until it fails or has had enough."""
        self.sessions += 1
        session = Session(self.rng.choice(list(Side)), "peer", 0.0, self._allocate)
        self._bring_into_a_state(session)
        for _ in range(self.rng.randrange(1, 12)):
            self._feed(session, self._next_frame(session))
            if session.error is not None or session.state is State.CLOSED:
                break
            self._answer(session)
        self._check(session)

    def _bring_into_a_state(self, session: Session) -> None:
        steps = self.rng.choice(self.corpus.conversations)
        for step in steps[: self.rng.randrange(len(steps))]:
            if "refused" in step or step["frame"] in {"ABORT", "BYE"}:
                return
            if step["from"] == session.side.value:
                session.send(message_of(bytes.fromhex(step["hex"])))
            else:
                self._feed(session, bytes.fromhex(step["hex"]))
        assert session.error is None
        session.data_to_send(0.0)

    def _next_frame(self, session: Session) -> bytes:
        """Return a frame: mostly one that may come now, as it is or changed."""
        way = self.rng.random()
        if way < 0.05:
            return self.rng.randbytes(self.rng.randrange(1, 200))
        if way < 0.15:
            return self.rng.choice(self.corpus.frames)
        frame = self._frame_allowed_to(session.side.other, session) or b"BRP1"
        return mutate(frame, self.rng) if self.rng.random() < 0.2 else frame

    def _answer(self, session: Session) -> None:
        """Have our side send something that it may send now, if there is anything."""
        frame = self._frame_allowed_to(session.side, session)
        if frame is not None:
            with contextlib.suppress(InternalError):  # it contradicts what came before
                session.send(message_of(frame))

    def _frame_allowed_to(self, side: Side, session: Session) -> bytes | None:
        types = [
            frame_type
            for frame_type in FrameType
            if next_state(session.state, frame_type, side) is not None
            and (side is session.side.other or frame_type not in {FrameType.ABORT, FrameType.BYE})
        ]
        return self.rng.choice(self.corpus.by_type[self.rng.choice(types)]) if types else None

    def _feed(self, session: Session, content: bytes) -> None:
        self.frames += 1
        rest = memoryview(content)
        while rest:
            place = session.get_buffer()
            assert 0 < len(place) <= max(MAX_PAYLOAD_BYTES, MAX_HEADER_BYTES)
            count = min(len(place), len(rest), self.rng.choice((1, 7, 1 << 20)))
            place[:count] = rest[:count]
            rest = rest[count:]
            session.buffer_updated(count, 0.0)
            self.taken += len(session.messages())

    def _check(self, session: Session) -> None:
        error = session.error
        assert error is None or isinstance(error, BlockrepError)
        if session.state is State.CLOSED:
            assert error is None
        elif error is not None:
            assert session.state is State.ABORTED
            self.refused += isinstance(error, ProtocolError)
        sent = b"".join(bytes(part) for part in session.data_to_send(0.0))
        aborts = sent.count(b"BRP1" + bytes([FrameType.ABORT, 0]))
        assert aborts <= 1
        self._feed(session, self.rng.choice(self.corpus.frames))
        session.fail(ProtocolError("a second fault"))
        session.receive_eof()
        if error is not None:
            assert session.error is error
            assert session.data_to_send(0.0) == []
            assert session.messages() == []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says; the seed comes first, so that a failure can be repeated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}")  # noqa: T201 - a program
    fuzzer = Fuzzer(options.seed)
    start = time.monotonic()
    elapsed = 0.0
    while fuzzer.frames < options.frames and elapsed < options.seconds:
        fuzzer.run_session()
        elapsed = time.monotonic() - start
    print(  # noqa: T201 - a program
        f"{fuzzer.frames} frames ({fuzzer.taken} taken),"
        f" {fuzzer.sessions} sessions ({fuzzer.refused} refused),"
        f" {fuzzer.frames / max(elapsed, 1e-9):.0f} frames per second"
    )
    record("fuzzed frames", fuzzer.frames, 0, f"seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
