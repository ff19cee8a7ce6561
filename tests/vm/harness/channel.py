"""The host's end of the line to the agent in a guest, and the commands that run over it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CommandFailedError, HarnessError, MachineStoppedError

_LENGTH = struct.Struct(">I")
_READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class Result:
    """How a command in a guest ended; a negative status is the signal that ended it."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str

    def check(self) -> Result:
        """Return itself, or raise CommandFailedError if the status is not 0."""
        if self.rc != 0:
            raise CommandFailedError(
                f"{' '.join(self.argv)}\nstatus {self.rc}\n"
                f"stdout: {self.stdout}\nstderr: {self.stderr}"
            )
        return self


class Process:
    """A command that runs in a guest. Any thread may use it."""

    def __init__(self, channel: Channel, number: int, argv: Sequence[str]) -> None:
        self._channel = channel
        self._number = number
        self._changed = threading.Condition()
        self._output = {"stdout": bytearray(), "stderr": bytearray(), "content": bytearray()}
        self._status: int | None = None
        self._error: HarnessError | None = None
        self.argv = tuple(argv)

    # -- called by the channel's thread

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one event of the agent."""
        with self._changed:
            match message["event"]:
                case "exit":
                    self._status = message["status"]
                case "error":
                    self._error = HarnessError(f"{' '.join(self.argv)}: {message['text']}")
                case event:
                    self._output[event] += base64.b64decode(message["data"])
            self._changed.notify_all()

    def lose(self, error: HarnessError) -> None:
        """Note that nothing more will come."""
        with self._changed:
            if self._status is None and self._error is None:
                self._error = error
            self._changed.notify_all()

    # -- for tests

    @property
    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return self._output["stdout"].decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self._output["stderr"].decode(errors="replace")

    @property
    def content(self) -> bytes:
        """The file that was read."""
        return bytes(self._output["content"])

    @property
    def running(self) -> bool:
        """Whether neither its end nor the end of its machine was seen yet."""
        return self._status is None and self._error is None

    def wait(self, timeout_seconds: float) -> Result:
        """Wait for the end. Raises TimeoutError (it still runs then) and MachineStoppedError."""
        with self._changed:
            ended = self._changed.wait_for(lambda: not self.running, timeout_seconds)
            if not ended:
                raise TimeoutError(
                    f"{' '.join(self.argv)}: not ended after {timeout_seconds} s\n"
                    f"stdout: {self.stdout}\nstderr: {self.stderr}"
                )
            if self._error is not None:
                raise self._error
            assert self._status is not None
            return Result(self.argv, self._status, self.stdout, self.stderr)

    def wait_for_output(self, pattern: str, timeout_seconds: float) -> re.Match[str]:
        """Wait until either output matches. Raises TimeoutError, or HarnessError if it ended."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                for text in (self.stdout, self.stderr):
                    if found := re.search(pattern, text):
                        return found
                if self._error is not None:
                    raise self._error
                state = f"stdout: {self.stdout}\nstderr: {self.stderr}"
                if self._status is not None:
                    raise HarnessError(f"ended before {pattern!r} was seen\n{state}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{pattern!r} not seen in {timeout_seconds} s\n{state}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and everything in its process group."""
        self._channel.send({"id": self._number, "do": "signal", "signal": int(number)})

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Write to its standard input; ``end`` closes it."""
        encoded = base64.b64encode(data).decode()
        self._channel.send({"id": self._number, "do": "input", "data": encoded, "end": end})


class Channel:
    """Frames to and from the agent; see the guest's agent.py for what they say."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._connection = connection
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._processes: dict[int, Process] = {}
        self._closed = False
        self._ready = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._receive, name=f"agent {name}", daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one request. Raises MachineStoppedError."""
        body = json.dumps(message).encode()
        try:
            with self._send_lock:
                self._connection.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise MachineStoppedError(f"{self._name} is not running") from error

    def request(self, argv: Sequence[str], message: Mapping[str, Any]) -> Process:
        """Send a request under a new id; ``argv`` is what errors will name."""
        number = next(self._numbers)
        process = Process(self, number, argv)
        with self._lock:
            if self._closed:
                raise MachineStoppedError(f"{self._name} is not running")
            self._processes[number] = process
        self.send({"id": number, **message})
        return process

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait for the agent's first word; tell whether it came (in time, and before the end)."""
        self._changed.wait(timeout_seconds)
        return self._ready

    def running(self) -> list[Process]:
        """Return the commands whose end was not seen yet."""
        with self._lock:
            return [process for process in self._processes.values() if process.running]

    def close(self) -> None:
        """Hang up: the agent then switches its machine off."""
        with contextlib.suppress(OSError):  # the machine may have been faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _receive(self) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):  # a killed machine resets the line: the same as its end
            while data := self._connection.recv(_READ_BYTES):
                buffer += data
                self._dispatch(buffer)
        with self._lock:
            self._closed = True
            self._changed.set()
            lost = list(self._processes.values())
            self._processes.clear()
        for process in lost:
            process.lose(MachineStoppedError(f"{self._name} stopped during {process.argv}"))

    def _dispatch(self, buffer: bytearray) -> None:
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            message = json.loads(bytes(buffer[_LENGTH.size : end]))
            del buffer[:end]
            if message["event"] == "ready":
                self._ready = True
                self._changed.set()
                continue
            last = message["event"] in {"exit", "error"}
            with self._lock:
                processes = self._processes
                number = message["id"]
                process = processes.pop(number, None) if last else processes.get(number)
            if process is not None:
                process.take(message)
