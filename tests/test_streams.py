"""Whatever the standard streams are, a program ends as it should and tells why once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.failpoints import program

CLI = [sys.executable, "-c", program("cli")]
SERVER = [sys.executable, "-c", program("server")]
#: What a shell does with the streams of a program.
WAYS = ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


def run(way: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    script = f'exec "$@" {way}'
    argv = ["sh", "-c", script, "sh", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def run_unread(words: list[str], *, error_too: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program whose standard output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            words,
            stdout=writing,
            stderr=writing if error_too else subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)


@pytest.fixture
def listing(tmp_path: Path) -> list[str]:
    """A command that starts an event loop and fails for a reason of its own."""
    config = tmp_path / "config.toml"
    config.write_text("")
    words = ["push", str(tmp_path / "nope.img"), "replica:./vm.img", "--config", str(config)]
    return [*CLI, *words]


@pytest.mark.parametrize("way", WAYS)
def test_closed_streams_change_no_exit_code(way: str, listing: list[str]) -> None:
    usual = run("", listing)
    assert usual.returncode in {3, 10}
    done = run(way, listing)
    assert done.returncode == usual.returncode
    if "2>&-" not in way:
        assert done.stderr == usual.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_server_starts_with_closed_streams(way: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[storage]\nstate_directory = '{tmp_path}'\n")
    done = run(way, [*SERVER, "--listen", f"unix:{tmp_path}/nowhere/s", "--config", str(config)])
    assert done.returncode == 3


@pytest.mark.parametrize("error_too", [False, True])
def test_an_error_for_whom_nobody_reads_the_output(listing: list[str], error_too: bool) -> None:
    done = run_unread([*listing, "--json"], error_too=error_too)
    assert done.returncode == 141
    if not error_too:
        (line,) = done.stderr.splitlines()
        assert "nope.img" in line


def test_what_is_told_on_standard_error_decides_about_nothing(listing: list[str]) -> None:
    usual = run("", listing)
    assert run("2>/dev/full", listing).returncode == usual.returncode
    done = run_unread(["sh", "-c", 'exec "$@" 2>&1', "sh", *listing])
    assert done.returncode == usual.returncode


@pytest.mark.parametrize("words", [["--help"], ["delta", "--help"], ["--version"]])
def test_output_that_cannot_be_written_is_one_line(words: list[str]) -> None:
    done = run(">/dev/full", [*CLI, *words])
    assert done.returncode == 11
    told = "standard output: cannot be written: No space left on device"
    assert done.stderr.splitlines() == [f"blockrep: error: {told}"]
    assert run(">/dev/full 2>/dev/full", [*CLI, *words]).returncode == 11


def test_an_error_whose_event_cannot_be_written_keeps_its_code(listing: list[str]) -> None:
    usual = run("", listing)
    done = run(">/dev/full", [*listing, "--json"])
    assert done.returncode == usual.returncode
    assert done.stderr == usual.stderr


def test_what_is_printed_reaches_no_file_of_ours(tmp_path: Path) -> None:
    """A file that is opened gets the lowest number that is free."""
    code = (
        "import sys; from blockrep.streams import prepare_streams;"
        "prepare_streams(output_matters=True);"
        "file = open(sys.argv[1], 'w'); print('not into it', flush=True);"
        "print('nor this', file=sys.stderr); sys.exit(0 if file.fileno() > 2 else 1)"
    )
    path = tmp_path / "file"
    assert run("<&- >&- 2>&-", [sys.executable, "-c", code, str(path)]).returncode == 0
    assert path.read_text() == ""


def test_streams_of_somebody_else_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from blockrep.streams import prepare_streams

    before = sys.stdout, sys.stderr
    prepare_streams(output_matters=True)
    assert (sys.stdout, sys.stderr) == before
    sys.stdout.write("seen")
    assert capsys.readouterr().out == "seen"
