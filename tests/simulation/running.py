"""Runs the scenario of a seed, with everything around it taken from the seed as well."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

from blockrep.client import operations
from blockrep.errors import BlockrepError, InternalError
from blockrep.server import gate
from blockrep.storage.lvm import cursors, metadata
from simulation.checkers import BrokenPromiseError
from simulation.disks import LvmDisk
from simulation.hosts import CrashedError, SimulatedHost
from simulation.locks import SimulatedLock
from simulation.scenario import Outcome, Scenario
from storage.simulated_lvm_volumes import simulated
from support.virtual_time import VirtualTimeLoop

T = TypeVar("T")


def simulate(
    seed: int, folder: Path, kinds: tuple[str, str] | None = None, link_fault: str = ""
) -> Outcome:
    """Run one seed; see :class:`simulation.scenario.Scenario`.

    Raises:
        BrokenPromiseError, InternalError: what is wrong.
    """
    return run_scenario(Scenario(seed, folder, kinds, link_fault), Scenario.run)


def run_scenario(scenario: Scenario, act: Callable[[Scenario], Awaitable[T]]) -> T:
    """Run an act of a scenario; raises as :func:`simulate`."""

    async def main() -> T:
        with _surroundings(scenario), _defects() as defects:
            try:
                scenario.start()
                outcome = await act(scenario)
                await scenario.settle()
            finally:
                if scenario.checkers.broken is not None:
                    raise scenario.checkers.broken
        if defects.found:
            raise BrokenPromiseError(f"the server's own defect: {defects.found[0]}")
        return outcome

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


@contextlib.contextmanager
def _surroundings(scenario: Scenario) -> Iterator[None]:
    """Take randomness and time from the seed, and simulated LVM in the place of the real one."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_seeded(scenario.rng))
        stack.enter_context(_on_its_clock(scenario.replica))
        lock = functools.partial(SimulatedLock, {})
        for module in (gate, operations):
            stack.enter_context(mock.patch.object(module, "VolumeLock", lock))
        hosts = {
            host.name: host
            for host in (scenario.origin, scenario.replica)
            if isinstance(host.disk, LvmDisk)
        }
        if hosts:
            stack.enter_context(_simulated_lvm(scenario.folder, hosts))
        yield


@contextlib.contextmanager
def _simulated_lvm(folder: Path, hosts: dict[str, SimulatedHost]) -> Iterator[None]:
    groups = {
        name: host.disk.group for name, host in hosts.items() if isinstance(host.disk, LvmDisk)
    }
    folder.mkdir(parents=True, exist_ok=True)

    def step(what: str) -> None:
        group = what.partition("/dev/mapper/")[2].partition("-")[0]
        hosts[group].step(what)

    def save_state(path: Path, content: bytes) -> None:
        """Write, as atomically as a rename is, without the cost of a real disk."""
        host = hosts[path.relative_to(folder).parts[0]]
        host.step("record")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        host.step("recorded")

    clock = SimpleNamespace(now=0.0)
    time = SimpleNamespace(
        monotonic=lambda: clock.now,
        sleep=lambda seconds: setattr(clock, "now", clock.now + seconds),
    )
    with (
        simulated(groups, folder, step),
        mock.patch.object(cursors, "save_state", save_state),
        mock.patch.object(metadata, "save_state", save_state),
        mock.patch.object(metadata, "time", time),
    ):
        yield


@contextlib.contextmanager
def _seeded(rng: random.Random) -> Iterator[None]:
    token: Callable[[int], str] = lambda count: rng.randbytes(count).hex()  # noqa: E731
    with (
        mock.patch.object(secrets, "token_hex", token),
        mock.patch.object(secrets, "randbits", rng.getrandbits),
    ):
        yield


@contextlib.contextmanager
def _on_its_clock(server: SimulatedHost) -> Iterator[None]:
    """Have the server say what time it is there: what it says is on the wire."""

    class Clock:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime.fromtimestamp(server.now_seconds(), zone)

    with mock.patch.object(gate, "datetime", Clock):
        yield


class _Defects(logging.Handler):
    """Catches what the server logs of its own defects."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        errors = [one for one in record.args or () if isinstance(one, BaseException)]
        if record.exc_info is not None and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        self.found += [
            repr(one)
            for one in errors
            if isinstance(one, InternalError) or not isinstance(one, BlockrepError | CrashedError)
            # The last words of a host that crashes: nobody hears them.
            if CrashedError.__name__ not in repr(one)
        ]


@contextlib.contextmanager
def _defects() -> Iterator[_Defects]:
    log = logging.getLogger("blockrep")
    handler = _Defects()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
