"""A new configuration comes to hold as a whole or not at all, and either is on record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from blockrep.errors import ConfigurationError
from blockrep.server.reload import reload, reload_when


def test_a_right_one_holds_and_is_on_record_afterwards() -> None:
    done: list[Any] = []

    def prepare() -> Callable[[], None]:
        done.append("prepared")
        return lambda: done.append("applied")

    assert reload(prepare, lambda event, fields: done.append((event, fields)))
    assert done == ["prepared", "applied", ("reload", {"done": True})]


@pytest.mark.parametrize("error", [OSError(36, "File name too long"), RecursionError("deep")])
async def test_whatever_is_wrong_with_one_the_next_is_asked_for(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[tuple[str, object]] = []
    held: list[str] = []
    asked, applied = asyncio.Event(), asyncio.Event()
    faults = iter([error])

    def prepare() -> Callable[[], None]:
        for fault in faults:
            raise fault
        held.append("the new one")
        return applied.set

    watching = asyncio.create_task(
        reload_when(asked, prepare, lambda event, fields: recorded.append((event, fields["done"])))
    )
    asked.set()
    await asyncio.sleep(0.01)
    assert (recorded, held) == ([("reload", False)], [])
    assert f"the one before stays: defect in blockrep: {type(error).__name__}" in caplog.text
    asked.set()
    async with asyncio.timeout(5):
        await applied.wait()
    assert recorded == [("reload", False), ("reload", True)]
    watching.cancel()


def test_what_came_to_hold_in_part_only_is_told(caplog: pytest.LogCaptureFixture) -> None:
    recorded: list[Any] = []

    def apply() -> None:
        msg = "halfway"
        raise RuntimeError(msg)

    assert not reload(lambda: apply, lambda event, fields: recorded.append((event, fields)))
    assert "may hold in part: restart" in caplog.text
    ((event, fields),) = recorded
    assert (event, fields["done"]) == ("reload", False)


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
