"""One seed: two hosts, a source that changes, pushes that are disturbed, one that is not.

Everything that is chosen comes from the seed, and time is virtual: the same seed is the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from unittest import mock

from blockrep.client import operations
from blockrep.client.operations import ClientContext
from blockrep.config.access import AccessPolicy, TargetRule
from blockrep.errors import BlockrepError, DivergedError, InternalError
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName, parse_volume
from blockrep.replication.receiver import ReceiverLimits
from blockrep.replication.sender import PushOptions
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.memory import MemoryHost, MemorySource, MemoryTarget
from blockrep.transport.interface import Transport
from simulation.checkers import BrokenPromiseError, Checkers
from simulation.hosts import CrashedError, SimulatedHost
from simulation.network import Link
from support.virtual_time import VirtualTimeLoop

T = TypeVar("T")

KIB = 1024
SOURCE = "disk"
TARGET = Target("tls", "replica", 8733, parse_volume("vg/copy"))
_PUSHES = 5
_LIMITS = ReceiverLimits(64 * KIB, 256 * KIB, heartbeat_seconds=5, timeout_seconds=30)
_RULES = AccessPolicy({"origin": (TargetRule("vg/copy", "vg/copy", adopt=True),)}, None)


@dataclass
class Outcome:
    """What a run came to; ``faults`` and ``ends`` count by name."""

    pushes: int = 0
    looks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)


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
        ]


class Scenario:
    """The world of one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome()
        self._folder = folder
        chunks = [4 * KIB, 16 * KIB, 64 * KIB]
        origin = MemoryHost("origin", chunk_bytes=self.rng.choice(chunks))
        target_chunk = self.rng.choice(chunks)
        replica = MemoryHost(
            "replica",
            chunk_bytes=target_chunk,
            align_bytes=target_chunk if self.rng.random() < 0.3 else 1,
        )
        self._unit = origin.chunk_bytes
        origin.create_volume(SOURCE, 64 * KIB * self.rng.randint(2, 8))
        self.checkers = Checkers(origin, replica, SOURCE, str(TARGET.volume))
        self.origin = SimulatedHost(origin, self.rng, self.checkers.look)
        self.replica = SimulatedHost(replica, self.rng, self.checkers.look)
        self._serving: set[asyncio.Task[None]] = set()
        self._start_server()

    # What runs.

    def _start_server(self) -> None:
        settings = ServiceSettings(
            _LIMITS, 8, 1 << 23, 10, 40, self._folder / f"run-{self.replica.boots}"
        )
        self._service = Service(
            settings,
            _RULES.authorize,
            lambda name: MemoryTarget(self.replica.memory, str(name)),
            lambda name: MemorySource(self.replica.memory, str(name)),
            self.replica.blocking(),
            self._now_seconds,
        )
        self.replica.on_crash.append(self._start_server)

    def _context(self, faults: bool) -> ClientContext:
        async def connect(_target: Target) -> Transport:
            return self._connect(faults)

        return ClientContext(
            open_source=lambda _name: MemorySource(self.origin.memory, SOURCE),
            open_target=lambda name: MemoryTarget(self.origin.memory, str(name)),
            connect=connect,
            blocking=self.origin.blocking(),
            runtime_directory=self._folder / f"client-{self.origin.boots}",
            handshake_seconds=lambda _target: 10,
            now_seconds=self._now_seconds,
        )

    def _connect(self, faults: bool) -> Transport:
        fault = self.rng.choice(["none", "none", "cut", "silent"]) if faults else "none"
        self._count(self.outcome.faults, f"network {fault}")
        latency = self.rng.choice([0, 0.001, 0.1])
        link = Link(self.rng, fault, self.rng.randint(1, 60), latency, self.checkers.watch())
        for host in (self.origin, self.replica):
            host.on_crash.append(link.drop)
        task = asyncio.create_task(self._service.serve(link.server))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self.replica.on_crash.append(lambda: _cancel(task))
        return link.client

    @staticmethod
    def _now_seconds() -> int:
        return 1_700_000_000 + int(asyncio.get_running_loop().time())

    # What is done.

    async def run(self) -> Outcome:
        """Push a changing source, disturbed and then undisturbed; check everything."""
        for _ in range(_PUSHES):
            self._change_source()
            for _ in range(self.rng.randint(0, 3)):
                await self._disturbed()
                if self.rng.random() < 0.5:
                    self._change_source()
            await self._undisturbed()
        self.outcome.looks = self.checkers.looks
        return self.outcome

    async def _disturbed(self) -> None:
        memory = self.replica.memory
        fault = self.rng.choice(["network", "client crash", "server crash", "EIO", "ENOSPC"])
        self._count(self.outcome.faults, fault)
        if fault == "client crash":
            self.origin.crash_in = self.rng.randint(1, 40)
        elif fault == "server crash":
            self.replica.crash_in = self.rng.randint(1, 60)
        elif fault == "EIO":
            memory.fail_syncs()
        elif fault == "ENOSPC":
            room = self.rng.randint(0, 8) * memory.chunk_bytes
            memory.capacity_bytes = memory.used_bytes() + room
        end = "pushed"
        try:
            await self._push(Wish(), faults=fault == "network")
        except BlockrepError as error:
            if isinstance(error, InternalError):
                raise
            end = error.code
        except CrashedError:
            end = "crashed"
        await self.settle()
        self._count(self.outcome.ends, end)
        self.origin.crash_in = self.replica.crash_in = 0
        memory.fail_syncs(0)
        memory.capacity_bytes = None

    async def _undisturbed(self) -> None:
        """Make progress: without a fault a push succeeds, at the first attempt."""
        await self._push(Wish(), faults=False)
        self._count(self.outcome.ends, "pushed")
        if self.rng.random() < 0.2:
            await self._drifted()

    async def _drifted(self) -> None:
        """Write to the replica: only what is asked for overwrites that."""
        self.replica.memory.write(str(TARGET.volume), 0, self.rng.randbytes(10))
        with contextlib.suppress(DivergedError):
            await self._push(Wish(), faults=False)
            raise BrokenPromiseError("a replica that was written to was overwritten")
        self._count(self.outcome.ends, "diverged")
        wish = self.rng.choice([Wish(adopt=True), Wish(full=True)])
        await self._push(wish, faults=False)

    async def _push(self, wish: Wish, *, faults: bool) -> None:
        self.outcome.pushes += 1
        options = PushOptions(str(TARGET), str(TARGET.volume), wish)
        push = operations.push(
            self._context(faults), VolumeName(path="/disk"), TARGET, options, lambda _event: None
        )
        transfers, _ = await self._on_origin(push)
        if self.checkers.newest_id != transfers[-1].snapshot.id:
            raise BrokenPromiseError("I10: a push that ended well is not the newest snapshot")
        self.checkers.pushed()

    async def _on_origin(self, work: Awaitable[T]) -> T:
        """Run what ends when the origin crashes."""
        task = asyncio.ensure_future(work)
        boots = self.origin.boots
        self.origin.on_crash.append(lambda: _cancel(task))
        try:
            return await task
        except asyncio.CancelledError:
            if self.origin.boots == boots:
                raise
            raise CrashedError from None
        finally:
            self.origin.on_crash.clear()

    def _change_source(self) -> None:
        memory, rng = self.origin.memory, self.rng
        size_bytes = len(memory.read(SOURCE))
        if rng.random() < 0.2:
            size_bytes += 4 * KIB * rng.randint(1, 20)
            memory.resize(SOURCE, size_bytes)
        for _ in range(rng.randint(0, 4)):
            offset = rng.randrange(size_bytes)
            length = min(rng.choice([1, 512, 4 * KIB, 100 * KIB]), size_bytes - offset)
            if rng.random() < 0.3:
                start = offset // self._unit * self._unit
                memory.discard(SOURCE, start, min(self._unit * 3, size_bytes - start))
            else:
                content = bytes(length) if rng.random() < 0.5 else rng.randbytes(length)
                memory.write(SOURCE, offset, content)

    @staticmethod
    def _count(counts: dict[str, int], name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    async def settle(self) -> None:
        """Wait until everything that was served has ended."""
        await asyncio.gather(*self._serving, return_exceptions=True)


def _cancel(task: asyncio.Future[T]) -> None:
    task.cancel()


def simulate(seed: int, folder: Path) -> Outcome:
    """Run one seed.

    Raises:
        BrokenPromiseError, InternalError: what is wrong.
    """

    async def main() -> Outcome:
        scenario = Scenario(seed, folder)
        with _seeded(scenario.rng), _defects() as defects:
            try:
                outcome = await scenario.run()
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
def _seeded(rng: random.Random) -> Iterator[None]:
    """Have snapshot ids come from the seed."""
    token: Callable[[int], str] = lambda count: rng.randbytes(count).hex()  # noqa: E731
    with (
        mock.patch.object(secrets, "token_hex", token),
        mock.patch.object(secrets, "randbits", rng.getrandbits),
    ):
        yield


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
