"""Programs are found where LVM lies, never killed while they change something, and explained."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockrep.errors import StorageError, UnsupportedHostError
from blockrep.storage.lvm import runner as module
from blockrep.storage.lvm.runner import (
    CommandResult,
    OutcomeUnknownError,
    ProcessRunner,
    describe_failure,
    require_root,
)


@pytest.fixture
def runner() -> ProcessRunner:
    return ProcessRunner(60)


def test_output_and_status_are_returned_whatever_they_are(runner: ProcessRunner) -> None:
    result = runner.run(["sh", "-c", "echo out; echo err >&2; exit 5"])
    assert (result.status, result.stdout, result.stderr) == (5, b"out\n", "err\n")
    assert [(one.argv[0], one.status) for one in runner.take_log()] == [("sh", 5)]
    assert describe_failure(result) == "sh failed with status 5: err"


def test_the_language_and_the_descriptors_are_lvms(runner: ProcessRunner) -> None:
    with Path("/dev/null").open() as file:
        os.set_inheritable(file.fileno(), True)
        script = f"echo $LC_ALL $LVM_SUPPRESS_FD_WARNINGS; ls /proc/self/fd/{file.fileno()}"
        result = runner.run(["sh", "-c", script])
    assert result.stdout.startswith(b"C 1\n")
    assert result.status != 0, "a descriptor of ours was inherited"


def test_a_program_in_sbin_is_found_without_sbin_in_the_path(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert runner.run(["ldconfig", "--version"]).status == 0


def test_a_missing_program_is_named_with_its_package(runner: ProcessRunner) -> None:
    with pytest.raises(UnsupportedHostError, match="lvnothing is not installed") as caught:
        runner.run(["lvnothing"])
    assert "apt-get install lvm2" in str(caught.value)


def test_thin_tools_have_a_package_of_their_own(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SYSTEM_FOLDERS", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedHostError, match="apt-get install thin-provisioning-tools"):
        runner.run(["thin_delta", "-V"])


def test_what_takes_too_long_is_left_alone_and_its_outcome_unknown(tmp_path: Path) -> None:
    # A killed lvcreate would leave LVM's metadata half done.
    runner = ProcessRunner(0.1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OutcomeUnknownError, match="and still runs"):
        runner.run(["sh", "-c", f"read line <{fifo}; exit 3"])
    (late,) = runner._late
    assert late.poll() is None
    fifo.write_text("go on\n")
    assert late.wait(10) == 3
    assert runner.take_log()[0].status is None


def test_a_ctrl_c_does_not_reach_it(runner: ProcessRunner) -> None:
    result = runner.run(
        ["sh", "-c", "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat"]
    )
    assert int(result.stdout) != os.getpgrp()


def test_a_stream_is_whole_or_an_error(runner: ProcessRunner) -> None:
    blocks = b"".join(runner.stream(["head", "-c", "1000000", "/dev/zero"]))
    assert len(blocks) == 1_000_000
    failing = runner.stream(["sh", "-c", "echo part; echo broken >&2; exit 2"])
    assert next(failing) == b"part\n"
    with pytest.raises(StorageError, match="status 2: broken"):
        next(failing)


def test_a_silent_stream_is_an_error_and_its_program_ends() -> None:
    runner = ProcessRunner(0.1)
    with pytest.raises(StorageError, match="said nothing for"):
        list(runner.stream(["sleep", "600"]))
    assert runner.take_log()[0].status is None


def test_leaving_a_stream_early_ends_its_program(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    blocks = runner.stream(["yes"])
    assert next(blocks).startswith(b"y\n")
    blocks.close()  # type: ignore[attr-defined]
    assert started[0].returncode is not None


def test_lvm_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    require_root()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnsupportedHostError, match="only be used by root"):
        require_root()


def test_a_failure_is_one_short_line() -> None:
    result = CommandResult(("lvs",), 5, b"", "  line one\n" + "x" * 1000 + "\n  the end\n")
    text = describe_failure(result)
    assert "\n" not in text
    assert len(text) < 400
    assert text.endswith("the end")
