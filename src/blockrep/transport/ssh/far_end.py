"""A program on the other host as the end of a stream: what it means when it does not play along."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from blockrep.errors import (
    ERRORS_BY_EXIT_CODE,
    BlockrepError,
    ConnectionLostError,
    ProtocolError,
    UnsupportedHostError,
)
from blockrep.protocol.frames import MAGIC
from blockrep.transport.interface import PeerInfo, Transport

__all__ = ["FarEndTransport", "ProgramEnd", "explain_end", "printable"]

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_USAGE = 2
_SHOWN_CHARACTERS = 300
_MORE_SECONDS = 0.5
_ERROR_PREFIX = "blockrep-server: error: "

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How the program ended.

    ``status``: its exit status; None: unknown, or a signal. ``stderr``: the last of what it said.
    """

    status: int | None
    stderr: str


def explain_end(end: ProgramEnd, program: str, where: str) -> BlockrepError:
    """Return what an end before the first byte means for the user."""
    said = printable(end.stderr)
    if end.status in {_NOT_FOUND, _NOT_EXECUTABLE}:
        return UnsupportedHostError(
            f"{program} was not found there" + (f" ({said})" if said else ""),
            where=where,
            safe="nothing was changed",
            next_step="install blockrep there, or name its program as remote_command in [ssh]",
        )
    if end.status == _USAGE:
        return UnsupportedHostError(
            f"{program} there does not know --stdio: it is too old, or something else ({said})",
            where=where,
            safe="nothing was changed",
            next_step="install the same version of blockrep on both hosts",
        )
    _, prefix, message = end.stderr.rpartition(_ERROR_PREFIX)
    if end.status in ERRORS_BY_EXIT_CODE and prefix:
        return ERRORS_BY_EXIT_CODE[end.status](printable(message), where=where)
    how = "ended" if end.status is None else f"ended with status {end.status}"
    return ConnectionLostError(
        f"{program} {how} before it said anything" + (f": {said}" if said else ""),
        where=where,
        safe="nothing was changed",
        next_step="run it there by hand and see",
    )


def printable(text: str) -> str:
    """Return the end of a peer's text as one short line that no terminal acts upon."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[-_SHOWN_CHARACTERS:]


class FarEndTransport:
    """A stream to a program, which must speak first of all the protocol.

    Args:
        stream: the bytes.
        program: for messages.
        ended: waits, in bounded time, for the program's end and explains it.
    """

    def __init__(
        self, stream: Transport, program: str, ended: Callable[[], Awaitable[BlockrepError]]
    ) -> None:
        self._stream = stream
        self._program = program
        self._ended = ended
        self._greeting = b""
        self.peer: PeerInfo = stream.peer

    async def receive_into(self, buffer: memoryview) -> int:
        """See :class:`blockrep.transport.interface.Transport`.

        Raises:
            BlockrepError: the program could not be started, or is not ours.
        """
        if self._spoke:
            return await self._stream.receive_into(buffer)
        try:
            count = await self._stream.receive_into(buffer)
        except ConnectionLostError as error:
            raise await self._ended() from error
        if not count:
            raise await self._ended()
        said = self._greeting + bytes(buffer[:count])
        self._greeting = said[: len(MAGIC)]
        if not MAGIC.startswith(self._greeting):
            text = printable((said + await self._more()).decode(errors="replace"))
            raise ProtocolError(
                f"the far side says something else than blockrep's protocol: {text}",
                where=self.peer.address,
                safe="nothing was changed",
                next_step="the login shell's start-up files there must print nothing (see ~/.bashrc"
                f"), and the command must run {self._program}",
            )
        return count

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        try:
            await self._stream.send(buffers)
        except ConnectionLostError as error:
            if self._spoke:
                raise
            raise await self._ended() from error

    async def close(self) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        await self._stream.close()

    def abort(self) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        self._stream.abort()

    async def _more(self) -> bytes:
        """Return what else the far side says within a moment."""
        text = bytearray()
        scrap = memoryview(bytearray(_SHOWN_CHARACTERS))
        with contextlib.suppress(TimeoutError, ConnectionLostError):
            async with asyncio.timeout(_MORE_SECONDS):
                while len(text) < _SHOWN_CHARACTERS and (
                    count := await self._stream.receive_into(scrap)
                ):
                    text += scrap[:count]
        return bytes(text)

    @property
    def _spoke(self) -> bool:
        return len(self._greeting) >= len(MAGIC)
