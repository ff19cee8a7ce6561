"""A new configuration comes to hold as a whole or not at all, and either is on record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from blockrep.errors import ConfigurationError
from blockrep.server.reload import reload


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
