"""Every line of the audit log is one JSON object that nobody can forge."""

from __future__ import annotations

import json
import logging

import pytest

from blockrep.server.audit import AUDIT_LOGGER, audit_for
from blockrep.transport.interface import PeerInfo


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
