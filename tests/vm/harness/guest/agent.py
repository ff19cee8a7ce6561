"""Runs commands in the guest for the test on the host (standard library only, Python 3.11).

Started by guest-init. Both directions carry frames: a length of four bytes (big endian), then that
many bytes of JSON; bytes values are base64. Requests from the host, each with a new ``id``:

    {"id", "do": "start", "argv": [...], "cwd", "env": {...}}  run a program in its own session
    {"id", "do": "signal", "signal"}          to the process group of that program
    {"id", "do": "input", "data", "end"}      to its standard input; end closes it
    {"id", "do": "write", "path", "data", "mode"}
    {"id", "do": "read", "path"}

Answers: {"id", "event": "stdout" | "stderr" | "content", "data"}, {"id", "event": "exit", "status"}
(negative: the signal that ended it), {"id", "event": "error", "text"}. One {"event": "ready"} comes
first. When the host goes away the machine is switched off, so that none outlives its test run.
"""

from __future__ import annotations

import array
import base64
import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import IO, Any

PORT_NAME = "agent"
LENGTH = struct.Struct(">I")
READ_BYTES = 64 * 1024


def find_port() -> Path:
    """Return the device of the virtio-serial port that the host named."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == PORT_NAME:
            return Path("/dev") / port.name
    raise SystemExit("agent: no virtio-serial port with that name")


class Stream:
    """Output of a program; ``moving`` is held while data is between the pipe and the host."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.descriptor = pipe.fileno()
        self.moving = threading.Lock()

    def is_drained(self) -> bool:
        """Tell whether all that is in the pipe so far was sent to the host."""
        pending = array.array("i", [0])
        with self.moving:
            fcntl.ioctl(self.descriptor, termios.FIONREAD, pending)
        return pending[0] == 0


class Agent:
    """The guest's end of the channel."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._write_lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        frame = memoryview(LENGTH.pack(len(body)) + body)
        with self._write_lock:
            while frame:
                frame = frame[os.write(self._port, frame) :]

    def _send_data(self, request: int, event: str, data: bytes) -> None:
        self._send({"id": request, "event": event, "data": base64.b64encode(data).decode()})

    def _receive_exactly(self, wanted: int) -> bytes:
        data = bytearray()
        while len(data) < wanted:
            piece = os.read(self._port, wanted - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def serve(self) -> None:
        """Answer requests until the host goes away."""
        self._send({"event": "ready"})
        while True:
            (length,) = LENGTH.unpack(self._receive_exactly(LENGTH.size))
            request = json.loads(self._receive_exactly(length))
            try:
                self._handle(request)
            except OSError as error:
                self._send({"id": request["id"], "event": "error", "text": str(error)})

    def _handle(self, request: dict[str, Any]) -> None:
        number = request["id"]
        match request["do"]:
            case "start":
                self._start(number, request)
            case "signal":
                process = self._running.get(number)
                if process is not None:
                    os.killpg(process.pid, request["signal"])
            case "input":
                self._input(number, base64.b64decode(request["data"]), request["end"])
            case "write":
                path = Path(request["path"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(request["data"]))
                path.chmod(request["mode"])
                self._send({"id": number, "event": "exit", "status": 0})
            case "read":
                self._send_data(number, "content", Path(request["path"]).read_bytes())
                self._send({"id": number, "event": "exit", "status": 0})

    def _start(self, number: int, request: dict[str, Any]) -> None:
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=request["cwd"],
            env={**os.environ, **request["env"]},
            start_new_session=True,
        )
        self._running[number] = process
        threading.Thread(target=self._attend, args=(number, process), daemon=True).start()

    def _input(self, number: int, data: bytes, end: bool) -> None:
        process = self._running.get(number)
        if process is None or process.stdin is None or process.stdin.closed:
            return
        try:
            process.stdin.write(data)
            process.stdin.flush()
            if end:
                process.stdin.close()
        except BrokenPipeError:
            process.stdin = None

    def _attend(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        streams = [Stream(process.stdout), Stream(process.stderr)]
        readers = [
            threading.Thread(target=self._forward, args=(number, event, stream))
            for event, stream in zip(("stdout", "stderr"), streams, strict=True)
        ]
        for reader in readers:
            reader.start()
        status = process.wait()
        # All that it wrote is in the pipes by now. A daemon that it left behind may hold them open
        # for ever, so their end is not waited for, only that they are empty.
        for reader, stream in zip(readers, streams, strict=True):
            while reader.is_alive() and not stream.is_drained():
                reader.join(timeout=0.02)
        del self._running[number]
        self._send({"id": number, "event": "exit", "status": status})

    def _forward(self, number: int, event: str, stream: Stream) -> None:
        while True:
            select.select([stream.descriptor], [], [])
            with stream.moving:
                data = os.read(stream.descriptor, READ_BYTES)
                if not data:
                    return
                self._send_data(number, event, data)


def switch_off() -> None:
    """Switch the machine off at once, without flushing anything."""
    power_off = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF, see reboot(2)
    ctypes.CDLL(None).reboot(ctypes.c_int(power_off))


def main() -> None:
    """Serve the host until it goes away, then switch the machine off."""
    port = os.open(find_port(), os.O_RDWR)
    try:
        Agent(port).serve()
    except (EOFError, OSError) as error:
        sys.stderr.write(f"agent: the host is gone ({error!r})\n")
    finally:
        switch_off()


if __name__ == "__main__":
    main()
