"""What is measured is the whole of a program: its time, its children, its own memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from measure import Program, Result, free_port, run_ends

SERVE = (
    "import signal, socket, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); "
    "sock = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
)


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


def run(sender: list[str]) -> Result:
    return run_ends(
        lambda port: [Program("server", python(SERVE, str(port)), port, serves=True)],
        lambda _port: [Program("sender", sender)],
    )


def test_time_ends_with_the_sender_when_the_receiver_serves() -> None:
    result = run(python("import time; time.sleep(0.3); print('done')"))
    assert 0.3 < result.wall_seconds < 5
    assert result.output == "done\n"


def test_memory_and_time_of_children_count_also_of_those_left_behind() -> None:
    child = "import time; a = bytearray(150 << 20); time.process_time(); sum(range(3_000_000))"
    text = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    result = run(python(text))
    assert result.peak_kib["sender"] > 150 * 1024
    assert result.peak_kib["receiver"] < 50 * 1024
    assert result.cpu_seconds > 0.01


def test_memory_of_whoever_measures_does_not_count() -> None:
    ballast = bytearray(200 << 20)
    assert run(python("pass")).peak_kib["sender"] < 50 * 1024
    assert ballast


def test_a_receiver_that_ends_by_itself_ends_the_time(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    receive = python(
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(0.5)", str(mark)
    )
    result = run_ends(
        lambda _port: [Program("receiver", receive, path=mark)],
        lambda _port: [Program("sender", python("pass"))],
    )
    assert result.wall_seconds > 0.3


def test_a_failure_is_told_with_what_the_program_said() -> None:
    with pytest.raises(RuntimeError, match=r"sender failed \(1\): oh no"):
        run(python("import sys; sys.exit('oh no')"))


def test_a_receiver_that_dies_is_told() -> None:
    with pytest.raises(RuntimeError, match="receiver did not start: oh no"):
        run_ends(
            lambda port: [Program("receiver", python("import sys; sys.exit('oh no')"), port)],
            lambda _port: [],
        )


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(10)}) > 1
