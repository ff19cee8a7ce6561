"""Runs a command's coroutine: uvloop, signals, configuration, names."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import uvloop

from blockrep.client.retrying import RetryPolicy
from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.values import parse_listening_address, parse_size
from blockrep.errors import InterruptedByUserError, UsageError
from blockrep.model.names import TARGET_FORMS, Target, VolumeName, parse_target, parse_volume
from blockrep.replication.sending import Compression, new_zstd_compressor

__all__ = [
    "compression_of",
    "rate_of",
    "retry_policy",
    "run_operation",
    "settings_of",
    "source_of",
    "target_of",
    "volume_of",
]

T = TypeVar("T")


def run_operation(operation: Coroutine[Any, Any, T]) -> T:
    """Run to the end; SIGINT, SIGTERM and SIGHUP cancel it, so that both hosts are left in order.

    A SIGHUP that is ignored stays so: nohup(1).

    Raises:
        InterruptedByUserError: a signal ended it.
    """
    logging.basicConfig(format="blockrep: %(levelname)s: %(message)s")
    logging.addLevelName(logging.WARNING, "warning")
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_cancellable(operation, numbers))
    finally:
        # The loop leaves the system's defaults.
        for number, handler in before.items():
            signal.signal(number, handler)


async def _cancellable(operation: Coroutine[Any, Any, T], numbers: list[signal.Signals]) -> T:
    task = asyncio.ensure_future(operation)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if received and number == signal.SIGHUP:
            return  # a terminal that closes tells the same process twice
        received.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise InterruptedByUserError(
            f"ended by {received[0].name}",
            safe="what the receiver acknowledged is kept",
            next_step="run the same command again: a push resumes",
        ) from None


def settings_of(options: argparse.Namespace) -> Settings:
    """Load the configuration; options about SSH win. Raises ConfigurationError, UsageError."""
    settings = load_settings(options.config, os.environ, os.geteuid())
    ssh = settings.ssh
    try:
        if command := getattr(options, "ssh_command", None):
            ssh = replace(ssh, command=tuple(shlex.split(command)))
        if forward := getattr(options, "ssh_forward", None):
            ssh = replace(ssh, forward=parse_listening_address(forward))
    except ValueError as error:
        raise UsageError(str(error), where="--ssh-command or --ssh-forward") from error
    return replace(settings, ssh=ssh)


def source_of(options: argparse.Namespace) -> VolumeName:
    """Return the source. Raises UsageError."""
    return volume_of(options.source, "SOURCE")


def volume_of(text: str, what: str) -> VolumeName:
    """Return a volume of this host; ``what`` is its name in the usage. Raises UsageError."""
    try:
        return parse_volume(text)
    except ValueError as error:
        raise UsageError(str(error), next_step=f"{what} is VG/LV or a path") from error


def target_of(text: str, settings: Settings) -> Target:
    """Return a target. Raises UsageError."""
    try:
        return parse_target(text, settings.client.port)
    except ValueError as error:
        hint = f"TARGET is {TARGET_FORMS}"
        raise UsageError(str(error), next_step=hint) from error


def retry_policy(settings: Settings) -> RetryPolicy:
    """Return how long ``--retry`` goes on."""
    client = settings.client
    return RetryPolicy(client.retry_give_up_seconds, client.retry_longest_wait_seconds)


def compression_of(options: argparse.Namespace) -> Compression | None:
    """Return what ``--compress`` says: None for no; without it, where it pays."""
    if options.compress is False:
        return None
    return Compression(new_zstd_compressor, always=options.compress is True)


def rate_of(text: str | None) -> int:
    """Return bytes a second, 0 for no limit. Raises UsageError."""
    if text is None:
        return 0
    try:
        rate = parse_size(text)
    except ValueError as error:
        raise UsageError(str(error), where="--bwlimit") from error
    if rate <= 0:
        raise UsageError("the rate must be more than 0", where="--bwlimit")
    return rate
