"""The server starts only with a configuration that it understands, and says where it listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blockrep.server import main as module
from blockrep.server.main import main
from support.failpoints import program


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "--listen"),
        (["--listen", "nonsense:port"], 2, "--listen nonsense:port"),
        (["--listne"], 2, "--help"),
        (["--listen", "--config", "/nowhere.toml"], 3, "/nowhere.toml"),
    ],
)
def test_a_wrong_start_is_one_line_and_its_code(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blockrep-server: error: ")
    assert text in line


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ValueError("oops"), 70)])
def test_defects_and_interruptions_are_one_line_and_their_code(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "load_settings", load)
    assert main(["--listen"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blockrep-server: error: ")
    assert ("oops" in line and "test_main.py:" in line) == (code == 70)


@pytest.mark.parametrize("way", [">/dev/full", ">&-", "| true", "2>/dev/full"])
def test_a_server_that_nobody_reads_serves(way: str, tmp_path: Path) -> None:
    config, path = tmp_path / "config.toml", tmp_path / "s"
    config.write_text(f"[storage]\nstate_directory = '{tmp_path}'\n")
    # The shell tells who it is that it becomes; in a pipe it is another process.
    script = f'sh -c \'echo $$ >"$0"; exec "$@"\' "$@" {way}'
    words = [sys.executable, "-c", program("server"), "--listen", f"unix:{path}"]
    argv = ["bash", "-o", "pipefail", "-c", script, "bash", str(tmp_path / "pid"), *words]
    with subprocess.Popen([*argv, "--config", str(config)]) as shell:
        deadline = time.monotonic() + 60
        while not path.is_socket():
            assert shell.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Where it listens was told, or not, in between.
        time.sleep(0.2)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        assert shell.wait(60) == 0


def test_missing_certificates_are_told_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[server]\nlisten = ['127.0.0.1:0']\n")
    assert main(["--listen", "--config", str(file)]) == 3
    assert "blockrep certs issue" in capsys.readouterr().err


def test_a_wrong_key_names_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[server]\nmax_session = 3\n")
    assert main(["--listen", "--config", str(file)]) == 3
    message = capsys.readouterr().err
    assert "config.toml" in message
    assert "max_sessions" in message


def test_a_current_directory_that_was_removed_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["--listen", "--config", "config.toml"]) == 2
    assert "the current directory was removed" in capsys.readouterr().err
