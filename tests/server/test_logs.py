"""A session over standard output never has log lines in its stream."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.server.logs import log_to_stderr, log_to_system


@contextlib.contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """A root logger without handlers, as a new process has it; pytest has put its own there."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    logger.handlers.clear()
    try:
        yield logger
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:] = before
        logger.setLevel(level)


def test_the_system_log_gets_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        with bare_root():
            log_to_system(path)
            logging.getLogger("blockrep.audit").info("an event")
        line = sock.recv(4096)
    assert b"blockrep-server: INFO blockrep.audit: an event" in line
    assert capfd.readouterr() == ("", "")


def test_without_one_standard_error_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with bare_root():
        log_to_system(tmp_path / "none")
        logging.getLogger("blockrep.audit").info("an event")
    assert capfd.readouterr() == ("", "INFO blockrep.audit: an event\n")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_what_a_system_log_that_goes_away_does_not_take_is_not_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: socket.SocketKind
) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, kind) as sock, bare_root():
        sock.bind(str(path))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        log_to_system(path)
        assert capfd.readouterr() == ("", "")
        sock.close()
        path.unlink()
        for number in range(2):
            logging.getLogger("blockrep.audit").info("event %s", number)
        said = capfd.readouterr().err
    assert "event 1" in said
    assert "Traceback" not in said
    assert "Logging error" not in said


def test_a_defect_in_a_call_is_still_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, bare_root():
        sock.bind(str(path))
        log_to_system(path)
        logging.getLogger("blockrep.audit").info("event %d", "one")
    assert "Logging error" in capfd.readouterr().err


def test_a_listening_server_logs_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with bare_root() as root:
        log_to_stderr()
        root.info("an event")
    assert "an event" in capfd.readouterr().err
