"""Every line of the audit log is one JSON object that nobody can forge."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.errors import ConfigurationError
from blockrep.server.audit import AUDIT_LOGGER, AuditFile, audit_for, use_audit_file
from blockrep.transport.interface import PeerInfo
from support.failpoints import program


def test_a_line_says_who_what_and_when(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    audit = audit_for(PeerInfo("origin", "10.0.0.1:5", "aa"), now=lambda: "2026-01-01T00:00:00Z")
    audit("committed", {"id": "x"})
    (record,) = caplog.records
    assert json.loads(record.getMessage()) == {
        "time": "2026-01-01T00:00:00Z",
        "event": "committed",
        "identity": "origin",
        "address": "10.0.0.1:5",
        "fingerprint": "aa",
        "id": "x",
    }


def test_a_peers_text_cannot_start_a_new_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    audit_for(PeerInfo("o", "a", ""))("refused", {"volume": 'x\n{"event":"committed"}'})
    assert "\n" not in caplog.records[0].getMessage()


@pytest.fixture
def audit_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Path]:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    yield tmp_path / "audit.log"
    use_audit_file(None)
    assert not [one for one in logging.getLogger(AUDIT_LOGGER).handlers if type(one) is AuditFile]


def test_a_file_gets_every_line_by_one_write(
    audit_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    write = os.write

    def counting(fd: int, content: bytes) -> int:
        writes.append(content)
        return write(fd, content)

    use_audit_file(AuditFile(audit_path))
    monkeypatch.setattr(os, "write", counting)
    audit = audit_for(PeerInfo("origin", "a", "f"))
    audit("authenticated", {})
    audit("refused", {"volume": "x" * 4096})
    monkeypatch.undo()
    assert audit_path.stat().st_mode & 0o777 == 0o600
    assert audit_path.read_bytes() == b"".join(writes)
    events = [json.loads(line)["event"] for line in audit_path.read_text().splitlines()]
    assert events == ["authenticated", "refused"]
    assert len(writes) == 2


def test_what_is_there_is_kept_and_a_rotated_file_is_let_go(audit_path: Path) -> None:
    audit_path.write_text("before\n")
    use_audit_file(AuditFile(audit_path))
    audit = audit_for(PeerInfo("origin", "a", "f"))
    audit("first", {})
    audit_path.rename(audit_path.with_suffix(".1"))
    use_audit_file(AuditFile(audit_path))
    audit("second", {})
    assert audit_path.with_suffix(".1").read_text().splitlines()[0] == "before"
    assert '"first"' in audit_path.with_suffix(".1").read_text()
    (line,) = audit_path.read_text().splitlines()
    assert '"second"' in line


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened") as caught:
        AuditFile(tmp_path / "missing" / "audit.log")
    assert caught.value.where == str(tmp_path / "missing" / "audit.log")


def test_a_file_that_cannot_be_opened_is_the_only_complaint(tmp_path: Path) -> None:
    """Logging closes its handlers at exit, those that never came to be, too."""
    config = tmp_path / "config.toml"
    config.write_text("[server]\naudit_file = 'missing/audit.log'\n")
    words = [sys.executable, "-c", program("server"), "--config", str(config), "--listen"]
    done = subprocess.run(
        [*words, f"unix:{tmp_path}/s"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "missing/audit.log: the audit file cannot be opened" in line


def test_a_full_disk_is_told_and_ends_nothing(
    audit_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use_audit_file(AuditFile(Path("/dev/full")))
    audit_for(PeerInfo("origin", "a", "f"))("committed", {"id": "x"})
    assert "/dev/full: the audit file cannot be written: No space left" in caplog.text
    assert '"committed"' in caplog.text, "the other log has the line"
    assert not audit_path.exists()


def test_a_cut_line_is_told(
    audit_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_audit_file(AuditFile(audit_path))
    monkeypatch.setattr(os, "write", lambda _fd, _content: 1)
    audit_for(PeerInfo("origin", "a", "f"))("committed", {})
    monkeypatch.undo()
    assert "was cut" in caplog.text
