"""Runs whole processes and measures them: wall time, CPU time of both ends, peak memory of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay import Link, relay_argv

TIMEOUT_SECONDS = 600
_POLL_SECONDS = 0.002
_METER = Path(__file__).with_name("meter.py")


@dataclass(frozen=True)
class Program:
    """One process of a run.

    ``port``, ``path``: it is ready when something listens there, when that exists. ``serves``: it
    does not end by itself.
    """

    name: str
    argv: Sequence[str]
    port: int = 0
    path: Path | None = None
    serves: bool = False


@dataclass(frozen=True)
class Result:
    """One run: seconds; for each end, the peak memory in KiB of its largest process.

    ``output``: what the first sender printed.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_kib: dict[str, int] = field(default_factory=dict)
    output: str = ""


class Measured:
    """A started program, its output, and what it took when it has ended."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in wait
        note, self._note = tempfile.mkstemp(prefix="blockrep-note-")
        os.close(note)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_METER), self._note, *program.argv],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Wait until the program serves. Raises RuntimeError: it ended, or is not ready in time."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program.name} did not start: {self.text()}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        port, path = self.program.port, self.program.path
        return (not port or port in listening_ports()) and (path is None or path.exists())

    def text(self) -> str:
        """Return what the program has printed."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def wait(self) -> dict[str, float]:
        """Return the meter's figures. Raises RuntimeError: the program failed."""
        self.process.wait(TIMEOUT_SECONDS)
        figures = json.loads(Path(self._note).read_bytes() or b'{"status": "not known"}')
        # What serves was told to end, and each calls that another status.
        if figures["status"] != 0 and not self.program.serves:
            raise RuntimeError(f"{self.program.name} failed ({figures['status']}): {self.text()}")
        return dict(figures)

    def end_serving(self) -> None:
        """Tell a program that serves to end. Raises RuntimeError: it has ended already."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program.name} ended early: {self.text()}")
        self.process.terminate()

    def close(self) -> None:
        """End whatever still runs of it."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._output.close()
        Path(self._note).unlink(missing_ok=True)


@contextlib.contextmanager
def running(programs: Iterable[Program]) -> Iterator[list[Measured]]:
    """Start programs and wait until they serve; end at exit what still runs."""
    with contextlib.ExitStack() as stack:
        started = []
        for program in programs:
            one = Measured(program)
            stack.callback(one.close)
            started.append(one)
        for one in started:
            one.wait_ready()
        yield started


def run_ends(
    receivers: Callable[[int], list[Program]],
    senders: Callable[[int], list[Program]],
    link: Link | None = None,
    ports: tuple[int, int] | None = None,
) -> Result:
    """Run receivers and senders; time from the first sender's start until all work is done.

    Receivers that serve have done their work when the senders end; others when they end.

    Args:
        receivers: given the port to listen on.
        senders: given the port to connect to.
        link: between them; its process is not counted.
        ports: that of the receivers and that of the link; None: any.
    """
    port, near_port = ports or (free_port(), free_port())
    relays = [Program("relay", relay_argv(link, near_port, port), near_port)] if link else []
    with running(receivers(port)) as far, running(relays):
        with contextlib.ExitStack() as stack:
            near = [Measured(one) for one in senders(near_port if link else port)]
            for one in near:
                stack.callback(one.close)
            sent = [one.wait() for one in near]
            output = near[0].text()
        for one in far:
            if one.program.serves:
                one.end_serving()
        received = [one.wait() for one in far]
    ends = [one["ended"] for one in sent]
    ends += [one["ended"] for one, end in zip(received, far, strict=True) if not end.program.serves]
    return Result(
        max(ends) - min(one["started"] for one in sent),
        sum(one["cpu_seconds"] for one in sent + received),
        {
            "sender": int(max(one["peak_kib"] for one in sent)),
            "receiver": int(max(one["peak_kib"] for one in received)),
        },
        output,
    )


def listening_ports() -> set[int]:
    """Return the TCP ports of this network namespace on which somebody listens."""
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
