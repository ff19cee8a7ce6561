"""What carries the bytes of a session: an ordered, reliable stream with backpressure.

And who is at its other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["LOCAL_IDENTITY", "PeerInfo", "Transport"]

LOCAL_IDENTITY: Final = "user:"
"""How the identities of this host's own users begin, and no others."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """The authenticated peer.

    Attributes:
        identity: name taken from the one SAN of its certificate (empty where the transport
            authenticates nobody).
        address: ``host:port`` or another description for people and the audit log.
        fingerprint: SHA-256 of its certificate, hexadecimal, or empty.
        serial: number of its certificate; 0: it has none.
        not_after_seconds: end of its certificate, seconds since the epoch; 0: it has none.
    """

    identity: str
    address: str
    fingerprint: str
    serial: int = 0
    not_after_seconds: int = 0


class Transport(Protocol):
    """One stream.

    One coroutine may receive while another sends; never two of the same direction at once.
    """

    peer: PeerInfo

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte into ``buffer``; return how many, 0 at the end of the stream.

        Raises:
            ConnectionLostError: the stream broke; says which peer.
        """

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Hand all the buffers, in order, to the operating system.

        They may be reused when this returns.

        Raises:
            ConnectionLostError: the stream broke.
        """

    async def close(self) -> None:
        """End the stream in an orderly way, in bounded time; never raises."""

    def abort(self) -> None:
        """Drop the stream at once; pending calls raise ConnectionLostError."""
