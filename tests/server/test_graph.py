"""The configuration's bounds are the service's."""

from __future__ import annotations

from pathlib import Path

from blockrep.config.load import load_settings
from blockrep.replication.blocking import ThreadBlocking
from blockrep.server.graph import service_of


def test_the_bounds_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        "[server]\nmax_sessions = 9\nmax_sessions_per_client = 3\npeer_timeout_seconds = 60\n"
        "idle_seconds = '5m'\n"
    )
    with ThreadBlocking(1) as blocking:
        service = service_of(load_settings(file, {}, 0), blocking)
    settings = service._settings
    assert (settings.max_sessions, settings.max_sessions_per_client) == (9, 3)
    assert settings.idle_seconds == 300
    assert settings.limits.timeout_seconds == 60
    assert settings.lock_wait_seconds > 60, "a dead session must be found dead first"
