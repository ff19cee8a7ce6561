"""SSH by the system's OpenSSH client: its configuration, ciphers, smart cards, and its speed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
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
from blockrep.transport.ssh.host_key_errors import host_key_error
from blockrep.transport.ssh.route import Destination, Login, SshRoute

__all__ = ["connect_program", "forwarded_socket"]

#: Status of ssh(1) for failures of its own.
_SSH_FAILED = 255
_STDERR_BYTES = 4096
_END_SECONDS = 5.0
_POLL_SECONDS = 0.05
#: What ssh says of the host's key with -v.
_OFFERED = re.compile(r"Server host key: (\S+ SHA256:[A-Za-z0-9+/]{43})")
# Nobody is there to type a password or "yes", and no configuration may say it for them. The first
# value that ssh reads holds: what the user's own command line says comes before these, ssh_config
# after them.
_FIXED_OPTIONS = (
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "UpdateHostKeys=no"),
    # The other host gets a stream, and nothing else of ours.
    *("-a", "-x", "-T"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),
)
# Beside a tunnel it would clear that, too.
_PROGRAM_OPTIONS = ("-o", "ClearAllForwardings=yes")
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
            process = await _start(
                login, route, _PROGRAM_OPTIONS, [route.stdio_command], theirs.fileno()
            )
    except BaseException:
        ours.close()
        raise
    peer = PeerInfo(where, f"ssh://{where}", "")
    stream = _ProcessTransport(DescriptorTransport(*_twice(ours.detach()), peer), process)
    program = route.remote_command[0]

    async def ended() -> BlockrepError:
        end = await stream.end()
        if end.status == _SSH_FAILED:
            return await _explain(end.stderr, login, route)
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
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{path}:{there}"]
    process = await _start(login, route, options, [], asyncio.subprocess.DEVNULL)
    running = _Process(process)
    try:
        deadline = asyncio.get_running_loop().time() + route.timeout_seconds
        while not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one look at a local folder
            if process.returncode is not None:
                raise await _explain((await running.end()).stderr, login, route)
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
    argv = [*route.command, *_FIXED_OPTIONS, *options]
    argv += ["-o", f"ConnectTimeout={max(1, int(route.timeout_seconds))}"]
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            *_destination(login),
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


def _destination(login: Login) -> list[str]:
    words = ["-p", str(login.port)] if login.port else []
    if login.user:
        words += ["-l", login.user]
    return [*words, "--", login.host]


class _Process:
    """The running ssh: keeps the last of what it says, and ends it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = b""
        self._reading = asyncio.create_task(self._read_stderr())

    async def end(self, timeout_seconds: float = _END_SECONDS) -> ProgramEnd:
        """Wait a little for the end of the process, then make it end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
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


async def _explain(stderr: str, login: Login, route: SshRoute) -> BlockrepError:
    """Return what OpenSSH's own failure means; its texts have been these for decades."""
    said = printable(stderr)
    where = str(login)
    nothing = "nothing was sent"
    if "REVOKED HOST KEY" in stderr:
        return ConfigurationError(f"the host key is revoked: {said}", where=where, safe=nothing)
    if "Host key verification failed" in stderr:
        accept = [*route.command, "-a", "-x", "-o", "StrictHostKeyChecking=ask"]
        ask = f"run: {shlex.join([*accept, *_destination(login), 'true'])}, and"
        changed = "HOST IDENTIFICATION HAS CHANGED" in stderr
        return host_key_error(
            where,
            await _offered_key(login, route),
            f"{ask} remove the old key as it says, then again to accept this one"
            if changed
            else f"{ask} paste the fingerprint where it asks",
            another_is_known=changed,
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


async def _offered_key(login: Login, route: SshRoute) -> str:
    """Return type and fingerprint of the key that was refused; empty: ssh does not say.

    It tells them in its own log only, so it is refused a second time.
    """
    running = _Process(await _start(login, route, ["-v", "-N"], [], asyncio.subprocess.DEVNULL))
    found: list[str] = _OFFERED.findall((await running.end(route.timeout_seconds)).stderr)
    # The last one: jump hosts were accepted before.
    return found[-1] if found else ""
