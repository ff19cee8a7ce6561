"""Runs whole processes and measures them: wall time, CPU time of both ends, peak memory of each."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_SECONDS = 600


@dataclass
class Program:
    """One process of a run. ``ready``: text in its output after which the other end may start."""

    name: str
    argv: Sequence[str]
    ready: str = ""


@dataclass
class Result:
    """One run: seconds, and for each process its peak memory in KiB."""

    wall_seconds: float
    cpu_seconds: float
    peak_kib: dict[str, int] = field(default_factory=dict)


class _Measured:
    """A started process whose resources are taken from the kernel when it ends."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in wait
        self.process = subprocess.Popen(
            program.argv, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output
        )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.program.ready not in self.text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                msg = f"{self.program.name} did not start: {self.text()}"
                raise RuntimeError(msg)
            time.sleep(0.005)

    def text(self) -> str:
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0).decode(errors="replace")

    def wait(self) -> tuple[float, int]:
        """Return CPU seconds and peak memory in KiB of the process and its children."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        text = self.text()
        self.output.close()
        if self.process.returncode not in {0, -15}:
            msg = f"{self.program.name} failed ({self.process.returncode}): {text}"
            raise RuntimeError(msg)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def run_pair(
    receiver: Callable[[], Program], sender: Callable[[str], Program], *, daemon: bool
) -> Result:
    """Run a receiver and a sender; time from the sender's start until both have done their work.

    Args:
        receiver: makes the listening program.
        sender: makes the other one, given the receiver's output so far.
        daemon: the receiver does not end by itself: the sender's end is the end of the work.
    """
    listening = _Measured(receiver())
    try:
        listening.wait_ready()
        program = sender(listening.text())
        started = time.monotonic()
        sending = _Measured(program)
        sender_cpu, sender_peak = sending.wait()
        ended = time.monotonic()
        if daemon:
            listening.process.terminate()
        receiver_cpu, receiver_peak = listening.wait()
        if not daemon:
            ended = time.monotonic()
    except BaseException:
        if listening.process.returncode is None:
            listening.process.kill()
            listening.process.wait()
        raise
    return Result(
        ended - started,
        sender_cpu + receiver_cpu,
        {"sender": sender_peak, "receiver": receiver_peak},
    )


def warm_pages(folder: Path, size_bytes: int) -> None:
    """Touch as much memory as the destination will take, just before a run.

    Memory that was freed more than about two seconds ago goes back to a hypervisor, and touching
    it again
    is five times slower: without this the order of the tools decides.
    """
    path = folder / "warm"
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes >> 20):
            file.write(block)
    path.unlink()
