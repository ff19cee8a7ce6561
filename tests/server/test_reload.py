"""A new configuration comes to hold as a whole or not at all, and either is on record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockrep.errors import ConfigurationError
from blockrep.server.reload import reload, watch_file


def test_a_right_one_holds_and_is_on_record_afterwards() -> None:
    done: list[Any] = []

    def prepare() -> Callable[[], None]:
        done.append("prepared")
        return lambda: done.append("applied")

    assert reload(prepare, lambda event, fields: done.append((event, fields)))
    assert done == ["prepared", "applied", ("reload", {"done": True})]


def test_a_wrong_one_is_told_and_nothing_changes(caplog: pytest.LogCaptureFixture) -> None:
    recorded: list[Any] = []

    def prepare() -> Callable[[], None]:
        raise ConfigurationError("is not TOML", where="/etc/blockrep/config.toml")

    caplog.set_level(logging.ERROR)
    assert not reload(prepare, lambda event, fields: recorded.append((event, fields)))
    assert "the one before stays: /etc/blockrep/config.toml: is not TOML" in caplog.text
    ((event, fields),) = recorded
    assert (event, fields["done"]) == ("reload", False)
    assert "is not TOML" in fields["what"]


async def test_a_file_that_changes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrep.server.reload._POLL_SECONDS", 0.001)
    path = tmp_path / "ca.crl"
    loads: asyncio.Queue[bool] = asyncio.Queue()

    def prepare() -> Callable[[], None]:
        return lambda: loads.put_nowait(path.exists())

    watching = asyncio.create_task(watch_file(path, prepare, lambda *_: None))
    await asyncio.sleep(0)
    for content in (b"one", b"two!"):
        path.write_bytes(content)
        assert await asyncio.wait_for(loads.get(), 10)
    path.unlink()
    assert not await asyncio.wait_for(loads.get(), 10)
    watching.cancel()
