"""The cable between two machines: a relay on the host that can fail in the ways cables do.

Each machine's network card sends and receives Ethernet frames over one end of a pair of datagram
sockets (QEMU's ``-netdev dgram`` with an inherited descriptor, so no port number can collide with
anything on the host); the relay holds the other ends and passes frames on, one thread a direction.

Faults can be set for one direction or both, at any time:

- ``cut()`` swallows every frame: for one direction this is a half-open connection, for both a
  pulled cable. Nobody is told; TCP notices only by its own timers. ``restore()`` mends it.
- ``cut_after(size_bytes, direction)`` cuts once that many more bytes have come: a transfer
  interrupted at a chosen point, without watching it.
- ``stall()`` holds every frame back: nothing is lost, everything is late. ``restore()`` delivers
  what was held, in order and ahead of what comes then.
- ``set_faults(drop_rate, corrupt_rate)``: seeded chances per frame. Corrupting swaps two 16-bit
  words of the frame's data, which the checksums of IP and TCP cannot notice: only an end-to-end
  check does. Frames too short to carry such words pass unharmed.

``counters()`` tells per direction how many frames and bytes came in, passed, and were swallowed,
held or corrupted; ``wait()`` waits until they say something. A byte is a byte of an Ethernet frame,
without preamble and checksum.
"""

from __future__ import annotations

import contextlib
import enum
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_FRAME_BYTES_MAX = 70_000
_SEND_TIMEOUT = struct.pack("ll", 0, 200_000)  # seconds, microseconds: the guest's card is off
#: Ethernet, IPv4 and TCP headers with options, and something to spare.
_HEADERS_BYTES = 14 + 20 + 60


class Direction(enum.Enum):
    """Which way frames go."""

    FORTH = "origin to replica"
    BACK = "replica to origin"


BOTH = (Direction.FORTH, Direction.BACK)


@dataclass(frozen=True)
class Counters:
    """What one direction saw since the link was made (or reset_counters)."""

    frames: int = 0
    bytes: int = 0
    passed_bytes: int = 0
    swallowed_frames: int = 0
    held_frames: int = 0
    corrupted_frames: int = 0


@dataclass
class _Way:
    """State of one direction, under the link's lock."""

    dice: random.Random
    outward: socket.socket
    cut: bool = False
    stalled: bool = False
    cut_after_bytes: int | None = None
    drop_rate: float = 0.0
    corrupt_rate: float = 0.0
    held: list[bytearray] = field(default_factory=list)
    # Not the link's lock: a machine that takes no frames must not stop those to the other one.
    sending: threading.Lock = field(default_factory=threading.Lock)
    counters: Counters = field(default_factory=Counters)

    def treat(self, frame: bytearray) -> bool:
        """Count and perhaps damage or hold a frame; tell whether it passes now."""
        size = len(frame)
        seen = self.counters
        seen = replace(seen, frames=seen.frames + 1, bytes=seen.bytes + size)
        swallowed = self.cut or self.dice.random() < self.drop_rate
        if swallowed:
            seen = replace(seen, swallowed_frames=seen.swallowed_frames + 1)
        else:
            seen = replace(seen, passed_bytes=seen.passed_bytes + size)
            if self.dice.random() < self.corrupt_rate and _swap_words(frame, self.dice):
                seen = replace(seen, corrupted_frames=seen.corrupted_frames + 1)
        if self.stalled and not swallowed:
            self.held.append(frame)
            seen = replace(seen, held_frames=seen.held_frames + 1)
        self.counters = seen
        if self.cut_after_bytes is not None:
            self.cut_after_bytes -= size
            if self.cut_after_bytes <= 0:
                self.cut, self.cut_after_bytes = True, None
        return not (swallowed or self.stalled)

    def deliver(self, *frames: bytearray) -> None:
        """Pass frames on."""
        # A switched-off machine takes no frames: lost, as on a cable.
        with self.sending, contextlib.suppress(BlockingIOError, BrokenPipeError):
            for frame in frames:
                self.outward.send(frame)

    def mend(self) -> None:
        """End all faults, deliver what is held."""
        self.cut = self.stalled = False
        self.cut_after_bytes = None
        self.drop_rate = self.corrupt_rate = 0.0
        held, self.held = self.held, []
        self.deliver(*held)


def _swap_words(frame: bytearray, dice: random.Random) -> bool:
    """Swap two different 16-bit words of the data; tell whether there were two."""
    words = range(_HEADERS_BYTES, len(frame) - 1, 2)
    for _ in range(8 if len(words) > 1 else 0):
        first, second = dice.sample(words, 2)
        one, other = frame[first : first + 2], frame[second : second + 2]
        if one != other:
            frame[first : first + 2], frame[second : second + 2] = other, one
            return True
    return False


class Link:
    """The relay. ``plug(end)`` gives a machine its end; all methods may be called by any thread."""

    def __init__(self, seed: int = 0) -> None:
        self._changed = threading.Condition()
        # The end at which each direction's frames come in, and the one where they go out.
        self._relay_ends: list[socket.socket] = []
        self._guest_ends: list[socket.socket] = []
        for _ in range(2):
            relay_end, guest_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            relay_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
            self._relay_ends.append(relay_end)
            self._guest_ends.append(guest_end)
        one, other = self._relay_ends
        self._ways = {
            way: _Way(random.Random(f"{seed} {way.value}"), outward)
            for way, outward in zip(BOTH, (other, one), strict=True)
        }
        self._threads = [
            threading.Thread(target=self._relay, args=(way, inward), name=way.value, daemon=True)
            for way, inward in zip(BOTH, (one, other), strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def plug(self, direction: Direction) -> int:
        """Return the descriptor of the end where that direction starts, for QEMU to inherit.

        It stays this link's own: a machine that boots again is plugged into the same end.
        """
        return self._guest_ends[BOTH.index(direction)].fileno()

    def cut(self, *directions: Direction) -> None:
        """Swallow all frames of these directions (both if none is named) from now on."""
        with self._changed:
            for direction in directions or BOTH:
                self._ways[direction].cut = True

    def cut_after(self, size_bytes: int, direction: Direction) -> None:
        """Cut a direction once that many more bytes came in."""
        with self._changed:
            self._ways[direction].cut_after_bytes = size_bytes

    def stall(self, *directions: Direction) -> None:
        """Hold all frames of these directions (both if none is named) back from now on."""
        with self._changed:
            for direction in directions or BOTH:
                self._ways[direction].stalled = True

    def is_cut(self, direction: Direction) -> bool:
        """Tell whether a direction is cut."""
        with self._changed:
            return self._ways[direction].cut

    def set_faults(
        self, *directions: Direction, drop_rate: float = 0.0, corrupt_rate: float = 0.0
    ) -> None:
        """Set the chances (0 to 1) of each frame of these directions (both if none is named)."""
        with self._changed:
            for direction in directions or BOTH:
                self._ways[direction].drop_rate = drop_rate
                self._ways[direction].corrupt_rate = corrupt_rate

    def restore(self) -> None:
        """Mend everything, in both directions; what a stall held arrives now."""
        with self._changed:
            for way in self._ways.values():
                way.mend()

    def counters(self, direction: Direction) -> Counters:
        """Return what a direction saw so far."""
        with self._changed:
            return self._ways[direction].counters

    def wait(
        self, direction: Direction, reached: Callable[[Counters], bool], timeout_seconds: float
    ) -> Counters:
        """Return what a direction saw once that is enough. Raises TimeoutError."""
        with self._changed:
            way = self._ways[direction]
            if not self._changed.wait_for(lambda: reached(way.counters), timeout_seconds):
                raise TimeoutError(f"not reached in {timeout_seconds} s: {way.counters}")
            return way.counters

    def reset_counters(self) -> None:
        """Start counting from 0 in both directions."""
        with self._changed:
            for way in self._ways.values():
                way.counters = Counters()

    def close(self) -> None:
        """End the relay."""
        for end in self._relay_ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (*self._relay_ends, *self._guest_ends):
            end.close()

    def _relay(self, direction: Direction, inward: socket.socket) -> None:
        buffer = bytearray(_FRAME_BYTES_MAX)
        way = self._ways[direction]
        while size := inward.recv_into(buffer):
            frame = buffer[:size]
            with self._changed:
                passes = way.treat(frame)
                self._changed.notify_all()
            if passes:
                way.deliver(frame)
