"""SSH by the system's OpenSSH client: its configuration, ciphers, smart cards, and its speed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ConnectionLostError,
    RefusedError,
    UnsupportedHostError,
)
from blockrep.transport.descriptors import DescriptorTransport
from blockrep.transport.interface import PeerInfo, Transport
from blockrep.transport.ssh.far_end import FarEndTransport, ProgramEnd, explain_end, printable
from blockrep.transport.ssh.route import Destination, Login, SshRoute

__all__ = ["connect_program", "forwarded_socket"]

#: Status of ssh(1) for failures of its own.
_SSH_FAILED = 255
_STDERR_BYTES = 4096
_END_SECONDS = 5.0
_POLL_SECONDS = 0.05
# A batch of frames fits, so that ssh and we do not wait for each other all the time.
_SOCKET_BYTES = 1024 * 1024

Buffer = bytes | bytearray | memoryview


async def connect_program(login: Login, route: SshRoute) -> Transport:
    """Start ``ssh HOST blockrep-server --stdio``.

    Whether it gets through shows on the first receive or send, which raise

    Raises:
        ConfigurationError: the host's key is not known.
        RefusedError: the host does not let us in.
        ConnectionLostError: the host does not answer.
        UnsupportedHostError: there is no ssh here, or no blockrep there.
    """
    where = str(login)
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    try:
        with theirs:
            process = await _start(login, route, ["-T"], [route.stdio_command], theirs.fileno())
    except BaseException:
        ours.close()
        raise
    peer = PeerInfo(where, f"ssh://{where}", "")
    stream = _ProcessTransport(DescriptorTransport(*_twice(ours.detach()), peer), process)
    program = route.remote_command[0]

    async def ended() -> BlockrepError:
        end = await stream.end()
        if end.status == _SSH_FAILED:
            return _explain(end.stderr, where)
        return explain_end(end, program, where)

    return FarEndTransport(stream, program, ended)


@asynccontextmanager
async def forwarded_socket(
    login: Login, route: SshRoute, destination: Destination, path: Path
) -> AsyncIterator[None]:
    """Have connections to the Unix socket ``path`` arrive at the destination there.

    See :func:`blockrep.transport.ssh.library.forwarded_socket`.
    """
    there = destination if isinstance(destination, str) else f"{destination[0]}:{destination[1]}"
    options = ["-N", "-T", "-o", "ExitOnForwardFailure=yes", "-L", f"{path}:{there}"]
    process = await _start(login, route, options, [], asyncio.subprocess.DEVNULL)
    running = _Process(process)
    try:
        deadline = asyncio.get_running_loop().time() + route.timeout_seconds
        while not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one look at a local folder
            if process.returncode is not None:
                raise _explain((await running.end()).stderr, str(login))
            if asyncio.get_running_loop().time() > deadline:
                raise ConnectionLostError(
                    "no answer in time", where=str(login), safe="nothing was sent"
                )
            await asyncio.sleep(_POLL_SECONDS)
        yield
    finally:
        await running.stop()


async def _start(
    login: Login,
    route: SshRoute,
    options: Sequence[str],
    command: Sequence[str],
    stream: int,
) -> asyncio.subprocess.Process:
    # BatchMode: nobody is there to type a password or "yes". Later options do not override these.
    argv = [*route.command, "-o", "BatchMode=yes", "-x", *options]
    argv += ["-o", f"ConnectTimeout={max(1, int(route.timeout_seconds))}"]
    if login.port:
        argv += ["-p", str(login.port)]
    if login.user:
        argv += ["-l", login.user]
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            "--",
            login.host,
            *command,
            stdin=stream,
            stdout=stream,
            stderr=asyncio.subprocess.PIPE,
            # A Ctrl-C at our terminal is ours: the session ends in order.
            start_new_session=True,
        )
    except OSError as error:
        raise UnsupportedHostError(
            f"{route.command[0]} cannot be started: {error.strerror}",
            where=shlex.join(route.command),
            safe="nothing was sent",
            next_step="install openssh-client, or correct --ssh-command",
        ) from error


class _Process:
    """The running ssh: keeps the last of what it says, and ends it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = b""
        self._reading = asyncio.create_task(self._read_stderr())

    async def end(self) -> ProgramEnd:
        """Wait a little for the end of the process, then make it end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        await self.stop()
        status = self._process.returncode
        stderr = self._stderr.decode(errors="replace")
        return ProgramEnd(status if status is not None and status >= 0 else None, stderr)

    async def stop(self) -> None:
        """End the process and wait for it."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
                await self._reading
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._reading.cancel()

    def kill(self) -> None:
        """End the process without waiting."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while text := await self._process.stderr.read(_STDERR_BYTES):
            self._stderr = (self._stderr + text)[-_STDERR_BYTES:]


class _ProcessTransport:
    """The stream of a program's standard input and output, with the program's life."""

    def __init__(self, stream: DescriptorTransport, process: asyncio.subprocess.Process) -> None:
        self._stream = stream
        self._process = _Process(process)
        self.peer = stream.peer

    async def receive_into(self, buffer: memoryview) -> int:
        return await self._stream.receive_into(buffer)

    async def send(self, buffers: Sequence[Buffer]) -> None:
        await self._stream.send(buffers)

    async def close(self) -> None:
        await self._stream.close()
        await self._process.stop()

    def abort(self) -> None:
        self._stream.abort()
        self._process.kill()

    async def end(self) -> ProgramEnd:
        return await self._process.end()


def _twice(descriptor: int) -> tuple[int, int]:
    return descriptor, descriptor


def _explain(stderr: str, where: str) -> BlockrepError:
    """Return what OpenSSH's own failure means; its texts have been these for decades."""
    said = printable(stderr)
    nothing = "nothing was sent"
    if "Host key verification failed" in stderr or "REMOTE HOST IDENTIFICATION" in stderr:
        return ConfigurationError(
            f"the host key is not known, or not the known one: {said}",
            where=where,
            safe=nothing,
            next_step="run ssh to that host by hand, compare the fingerprint that it shows with the"
            " host's own, then accept it",
        )
    if "Permission denied" in stderr:
        return RefusedError(
            f"the host accepts none of our keys: {said}",
            where=where,
            safe=nothing,
            next_step="add the public key to authorized_keys there (blockrep authorize prints a"
            " line that allows nothing else)",
        )
    return ConnectionLostError(
        f"ssh failed: {said or 'it says nothing'}",
        where=where,
        safe=nothing,
        next_step="run the same ssh command by hand and see",
    )
