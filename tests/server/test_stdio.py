"""Standard input and output carry one session, and nothing else.

A whole session through sshd is in tests/integration/test_ssh.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_SCRIPT = "import sys; from blockrep.server.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(
        f"[storage]\nruntime_directory = '{tmp_path}/run'\n"
        f"[server]\naudit_file = '{tmp_path}/audit'\n"
    )
    return file


@pytest.fixture
def rules(config: Path) -> Path:
    config.write_text(config.read_text() + "[clients.alpha]\ntargets = [{ name = 'vg/a' }]\n")
    return config


def serve(config: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-c", _SCRIPT, "--stdio", "--config", str(config), *words]
    return subprocess.run(argv, input=data, capture_output=True, check=False, timeout=60)


def test_an_end_before_hello_ends_the_server(config: Path) -> None:
    done = serve(config)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_the_session_and_the_client_is_told(
    rules: Path, tmp_path: Path, number: signal.Signals
) -> None:
    argv = [sys.executable, "-c", _SCRIPT, "--stdio", "--config", str(rules), "--as", "alpha"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as server:
        audit = tmp_path / "audit"
        deadline = time.monotonic() + 30
        while not (audit.exists() and "authenticated" in audit.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.send_signal(number)
        assert server.wait(30) == 0
        assert server.stdout is not None
        told = server.stdout.read()
    assert told.startswith(b"BRP1")
    assert b"interrupted" in told


def test_what_is_no_protocol_gets_an_abort_and_no_text(rules: Path) -> None:
    done = serve(rules, "--as", "alpha", data=b"GET / HTTP/1.1\r\n\r\n")
    assert done.stdout.startswith(b"BRP1"), done.stdout
    assert done.returncode == 0


def test_a_forced_identity_without_rules_may_do_nothing(config: Path, tmp_path: Path) -> None:
    done = serve(config, "--as", "alpha")
    assert done.returncode == 3
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()[-1:]
    for word in (str(config), "[clients.alpha]", "blockrep authorize alpha", "--toml"):
        assert word in line
    recorded = json.loads((tmp_path / "audit").read_text())
    assert recorded["event"] == "refused"
    assert recorded["identity"] == "alpha"


def test_the_key_is_on_record(rules: Path, tmp_path: Path) -> None:
    fingerprint = "SHA256:" + "A" * 43
    done = serve(rules, "--as", "alpha", "--key-fingerprint", fingerprint)
    assert done.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert {(line["identity"], line["fingerprint"]) for line in lines} == {("alpha", fingerprint)}


@pytest.mark.parametrize(
    "words",
    [["--as", "alpha", "--key-fingerprint", "x"], ["--key-fingerprint", "SHA256:" + "A" * 43]],
)
def test_what_is_no_key_of_an_identity(rules: Path, words: list[str]) -> None:
    done = serve(rules, *words)
    assert done.returncode == 2
    assert b"--key-fingerprint" in done.stderr


def test_whoever_has_a_shell_needs_no_rules(config: Path) -> None:
    done = serve(config, data=b"GET / HTTP/1.1\r\n\r\n")
    assert done.stdout.startswith(b"BRP1"), done.stderr


@pytest.mark.parametrize("words", [["--listen"], ["--listen", "unix:/x"]])
def test_one_way_at_a_time(config: Path, words: list[str]) -> None:
    done = serve(config, *words)
    assert done.returncode == 2
    assert b"not allowed with" in done.stderr
