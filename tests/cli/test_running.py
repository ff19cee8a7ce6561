"""A signal ends an operation in order; names and rates are checked before anything starts."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import pytest

from blockrep.cli.running import rate_of, run_operation, settings_of, source_of, target_of
from blockrep.errors import ConfigurationError, InterruptedByUserError, UsageError


async def answer() -> int:
    return 42


def test_the_result_is_returned() -> None:
    assert run_operation(answer()) == 42


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_and_lets_it_clean_up(number: signal.Signals) -> None:
    cleaned: list[str] = []

    async def operation() -> None:
        try:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            cleaned.append("yes")

    with pytest.raises(InterruptedByUserError, match=number.name):
        run_operation(operation())
    assert cleaned == ["yes"]


def test_a_terminal_that_closes_does_so_twice() -> None:
    """The shell tells its jobs, and then the kernel tells whoever is in the foreground."""
    cleaned: list[str] = []

    async def operation() -> None:
        try:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGHUP)
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.1)
            cleaned.append("yes")

    with pytest.raises(InterruptedByUserError, match="SIGHUP"):
        run_operation(operation())
    assert cleaned == ["yes"]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_what_holds_for_signals_is_left_as_it_was(handler: signal.Handlers) -> None:
    """Under nohup a hangup is ignored, and stays so."""

    async def operation() -> str:
        if handler == signal.SIG_IGN:
            os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.1)
        return "done"

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, handler)
        assert run_operation(operation()) == "done"
        assert [signal.getsignal(number) for number in before] == [handler] * 2
    finally:
        for number, one in before.items():
            signal.signal(number, one)


def test_a_cancellation_of_its_own_is_no_interruption() -> None:
    async def operation() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_operation(operation())


def test_names_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[client]\nport = 99\n")
    options = argparse.Namespace(config=file, source="volg/lv")
    settings = settings_of(options)
    assert str(source_of(options)) == "volg/lv"
    assert target_of("replica:vg/lv", settings).port == 99
    with pytest.raises(UsageError):
        target_of("replica", settings)
    with pytest.raises(UsageError):
        source_of(argparse.Namespace(source="@tag"))
    with pytest.raises(ConfigurationError):
        settings_of(argparse.Namespace(config=tmp_path / "missing.toml"))


def test_rates() -> None:
    assert rate_of(None) == 0
    assert rate_of("1M") == 1 << 20
    for wrong in ("fast", "0", "-1"):
        with pytest.raises(UsageError):
            rate_of(wrong)
