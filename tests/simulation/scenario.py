"""One seed: two hosts, a source that changes, pushes that are disturbed, one that is not.

Everything that is chosen comes from the seed, and time is virtual: the same seed is the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from blockrep.client import operations
from blockrep.client.operations import ClientContext
from blockrep.client.retrying import RetryPolicy, retrying
from blockrep.config.access import AccessPolicy, TargetRule
from blockrep.errors import BlockrepError, BusyError, DivergedError, InternalError
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName, parse_volume
from blockrep.replication.events import EventSink
from blockrep.replication.push import PushOptions, Transfer
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.memory.host import Lands
from blockrep.transport.interface import Transport
from simulation import faults
from simulation.checkers import BrokenPromiseError, Checkers
from simulation.disks import Disk, LvmDisk, MemoryDisk
from simulation.hosts import CrashedError, SimulatedHost
from simulation.network import BAD_LINES, Link

T = TypeVar("T")

KIB = 1024
SOURCE = VolumeName(vg="origin", lv="copy")
TARGET = Target("tls", "replica", 8733, parse_volume("replica/copy"))
_LIMITS = ReceiverLimits(64 * KIB, 256 * KIB, heartbeat_seconds=5, timeout_seconds=30)
_RULES = AccessPolicy({"origin": (TargetRule("replica/copy", "replica/copy", adopt=True),)}, None)


@dataclass
class Outcome:
    """What a run came to; ``faults`` and ``ends`` count by name."""

    pushes: int = 0
    looks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)


class Scenario:
    """The world of one seed.

    Attributes:
        network_fault: what the next connection suffers; see :mod:`simulation.network`.
        meanwhile: what somebody else asks the server for while a push runs.

    Args:
        kinds: of disk, at the origin and at the replica, ``memory`` or ``lvm``; None: by the seed.
        link_fault: what every connection of a disturbed push suffers, and nothing else happens.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        kinds: tuple[str, str] | None = None,
        link_fault: str = "",
    ) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome()
        self.network_fault = ""
        self.meanwhile = ""
        self.folder = folder
        self._link_fault = link_fault
        self._bad_lines = False
        source_kind, target_kind = kinds or self.rng.choices(["memory", "lvm"], [15, 1], k=2)
        self.origin = SimulatedHost("origin", self.rng, self._look)
        self.replica = SimulatedHost("replica", self.rng, self._look)
        self.origin.disk = self._make_disk(source_kind, self.origin)
        self.replica.disk = self._make_disk(target_kind, self.replica)
        self._unit = self.origin.disk.chunk_bytes
        self.origin.disk.create(64 * KIB * self.rng.randint(2, 8))
        self.checkers = Checkers(self.origin.disk, self.replica.disk)
        self._serving: set[asyncio.Task[None]] = set()
        faults.disarm(self)

    def start(self) -> None:
        """Start the server; inside of the event loop."""
        self._start_server()

    def _make_disk(self, kind: str, host: SimulatedHost) -> Disk:
        if kind == "lvm":
            return LvmDisk(self.rng, host.name, host.step, self.folder)
        return MemoryDisk(self.rng, host.name, host.step)

    def _look(self) -> None:
        self.checkers.look()

    # What runs.

    def _start_server(self) -> None:
        folder = self.folder / f"run-{self.replica.boots}"
        disk = self.replica.disk
        self._service = Service(
            ServiceSettings(_LIMITS, 8, 8, 600, 1 << 23, 10, 40, folder),
            _RULES.authorize,
            lambda _name: disk.target(),
            lambda _name: disk.source(),
            self.replica.blocking(),
            self.replica.now_seconds,
        )
        self.replica.on_crash.append(self._start_server)

    def _context(self, name: str = "client") -> ClientContext:
        async def connect(_target: Target) -> Transport:
            return self._connect()

        disk = self.origin.disk
        return ClientContext(
            open_source=lambda _name: disk.source(),
            open_target=lambda _name: disk.target(),
            connect=connect,
            blocking=self.origin.blocking(),
            runtime_directory=self.folder / f"{name}-{self.origin.boots}",
            handshake_seconds=lambda _target: 10,
            now_seconds=self.origin.now_seconds,
        )

    def _connect(self) -> Transport:
        hosts = (self.origin, self.replica)
        if self._bad_lines:
            self.network_fault = self.rng.choice(("", *BAD_LINES))
        if self.network_fault:
            self.count(self.outcome.faults, f"link {self.network_fault}")
        after = self.rng.randint(1, self.rng.choice([20, 100]))
        link = Link(self.rng, self.network_fault, after, hosts, self.checkers.watch())
        self.origin.on_crash.append(link.lose_client)
        self.replica.on_crash.append(link.drop)
        task = asyncio.create_task(self._service.serve(link.server))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self.replica.on_crash.append(lambda: _cancel(task))
        return link.client

    # What is done.

    async def run(self) -> Outcome:
        """Push a changing source, disturbed and then undisturbed; check everything."""
        rounds, disturbances = (1, 1) if self.rng.random() < 0.9 else (4, 3)
        self._change_source()
        if self.rng.random() < 0.7:
            await self._push(Wish())
        for _ in range(rounds):
            self._change_source()
            for _ in range(self.rng.randint(1, disturbances)):
                await self._disturbed()
                if self.rng.random() < 0.5:
                    self._change_source()
                if self.rng.random() < 0.2:
                    await self.settle()  # what is being committed is not pending
                    self.origin.disk.forget_pending(self.replica.disk.goods().keys())
            await self._undisturbed()
        self.outcome.looks = self.checkers.looks
        return self.outcome

    async def crash_at(self, host: SimulatedHost, step: int, *, keeps_power: bool) -> bool:
        """Push, change, push with a crash at that step, push again; False: there is no such step.

        The crash comes in the push of a change upon an older snapshot.
        """
        self._change_source()
        await self._push(Wish())
        self._change_source()
        host.crash_in, host.keeps_power = step, keeps_power
        with contextlib.suppress(CrashedError, BlockrepError):
            await self._push(Wish())
        await self.settle()
        crashed = not host.crash_in
        faults.disarm(self)
        await self._undisturbed()
        return crashed

    async def over_bad_lines(self) -> Outcome:
        """Push over connections that break, to a host that may crash: it ends well by itself."""
        policy = RetryPolicy(3600, 60, self.rng)
        for _ in range(3):
            self._change_source()
            self._bad_lines = True
            if self.rng.random() < 0.3:
                faults.replica_crashes(self, self.rng)
            await self._push(Wish(), policy)
            await self.settle()
            faults.disarm(self)
            self._bad_lines = False
        return self.outcome

    async def _disturbed(self) -> None:
        chosen = self.rng.sample(faults.FAULTS, self.rng.choice([1, 1, 1, 2]))
        # It writes to the source, which nothing may disturb before.
        chosen.sort(key=lambda arm: arm is not faults.somebody_fills_the_pool_meanwhile)
        self.network_fault = self._link_fault
        if self.rng.random() < 0.25:  # beside anything else: sessions outlive their clients
            chosen.append(faults.slow_disks)
        for arm in [faults.slow_disks] if self._link_fault else chosen:
            self.count(self.outcome.faults, arm.__name__)
            arm(self, self.rng)
        end = "pushed"
        policy = RetryPolicy(120, 20, self.rng) if self.rng.random() < 0.2 else None
        try:
            await self._with_others(self._push(Wish(), policy))
        except BlockrepError as error:
            if isinstance(error, InternalError):
                raise
            end = error.code
        except CrashedError:
            end = "crashed"
        self.count(self.outcome.ends, end)
        if self.rng.random() < 0.5:
            await self.settle()
        faults.disarm(self)

    async def _undisturbed(self) -> None:
        """Make progress: without a fault a push succeeds, at the first attempt.

        Unless the server still waits for the one before: then at the second.
        """
        try:
            await self._push(Wish())
        except BusyError:
            assert self._serving
            await self.settle()
            await self._push(Wish())
        await self.settle()
        self.count(self.outcome.ends, "pushed")
        what = self.rng.random()
        if what < 0.05:
            await self._written_to()
        elif what < 0.1:
            await self._lied_to()
        elif what < 0.15:
            await self._without_a_base()

    async def _written_to(self) -> None:
        """Write to the replica: only what is asked for overwrites that."""
        self.replica.disk.write(0, self.rng.randbytes(10))
        await self._refused_as_diverged("a replica that was written to was overwritten")
        await self._push(self.rng.choice([Wish(adopt=True), Wish(full=True)]))

    async def _lied_to(self) -> None:
        """Let a disk lose what it said was durable, or put it elsewhere: a comparison finds it.

        And an adoption heals it.
        """
        lie = self.rng.choice(["spoiled", "lost", "misdirected"])
        if lie == "spoiled":
            if not self.replica.disk.spoil(self.rng):
                return
            self.checkers.excuse_lies(lying=True)
        else:
            self.checkers.excuse_lies(lying=True)
            self.replica.disk.lie(self._lie(lie == "lost"))
            self._change_source()
            await self._push(Wish())
            self.replica.disk.repair()
        options = PushOptions(str(TARGET), str(TARGET.volume))
        context = self._context()
        found = await self._on_origin(
            operations.verify(context, SOURCE, TARGET, options, lambda _event: None)
        )
        if bool(found.different_bytes) == self.checkers.is_newest_right():
            raise BrokenPromiseError(f"I2: verify, of a disk that {lie}: {found}")
        if found.different_bytes:
            self.count(self.outcome.ends, f"{lie} data found")
        self.checkers.excuse_lies(lying=False)
        await self._push(Wish(adopt=True))

    def _lie(self, lost: bool) -> Lands:
        """Return where one of the next writes does not land where it belongs."""
        left = self.rng.randint(1, 3)
        size_bytes = self.replica.disk.size_bytes()

        def lands(offset_bytes: int, length_bytes: int) -> int | None:
            nonlocal left
            left -= 1
            if left:
                return offset_bytes
            rest = (size_bytes - length_bytes) // 512
            return None if lost or rest <= 0 else 512 * self.rng.randint(0, rest)

        return lands

    async def _without_a_base(self) -> None:
        """Remove the source's snapshots: nothing is guessed."""
        self.origin.disk.forget_bases()
        self.checkers.excuse_missing_bases()
        await self._refused_as_diverged("a replica without a common base was overwritten")
        await self._push(self.rng.choice([Wish(adopt=True), Wish(full=True)]))

    async def _refused_as_diverged(self, otherwise: str) -> None:
        with contextlib.suppress(DivergedError):
            await self._push(Wish())
            raise BrokenPromiseError(otherwise)
        self.count(self.outcome.ends, "diverged")

    async def _push(self, wish: Wish, policy: RetryPolicy | None = None) -> None:
        # By itself it is used for large deltas only.
        pages = self.rng.choice([True, False])
        options = PushOptions(str(TARGET), str(TARGET.volume), wish, page_delta=pages)
        context = self._context()

        async def attempt(sink: EventSink) -> list[Transfer]:
            self.outcome.pushes += 1
            return (await operations.push(context, SOURCE, TARGET, options, sink))[0]

        transfers = await self._on_origin(retrying(attempt, policy, lambda _event: None))
        if self.checkers.newest_id != transfers[-1].snapshot.id:
            raise BrokenPromiseError("I10: a push that ended well is not the newest snapshot")
        self.checkers.pushed()
        if not self.meanwhile:
            self.checkers.idle()

    async def _with_others(self, push: Coroutine[Any, Any, None]) -> None:
        """Push while somebody else may ask the server for something."""
        if not self.meanwhile:
            await push
            return
        other = asyncio.create_task(self._ask(self.meanwhile))
        try:
            await push
        finally:
            with contextlib.suppress(BlockrepError, CrashedError):
                await other
        await self.settle()
        self.checkers.idle()

    async def _ask(self, what: str) -> None:
        await asyncio.sleep(self.rng.choice([0, 0.001, 0.1]))
        # A second push comes from the same host, where it finds the lock of the first.
        context = self._context("client" if what == "push" else "other")
        options = PushOptions(str(TARGET), str(TARGET.volume))
        if what == "list":
            await self._on_origin(operations.list_remote(context, TARGET, lambda _event: None))
            return
        ask = operations.push if what == "push" else operations.verify
        await self._on_origin(ask(context, SOURCE, TARGET, options, lambda _event: None))

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

    def _change_source(self) -> None:
        disk, rng = self.origin.disk, self.rng
        size_bytes = disk.size_bytes()
        if rng.random() < 0.2:
            disk.grow(size_bytes + 4 * KIB * rng.randint(1, 20))
            size_bytes = disk.size_bytes()
        for _ in range(rng.randint(0, 4)):
            offset = rng.randrange(size_bytes)
            length = min(rng.choice([1, 512, 4 * KIB, 100 * KIB]), size_bytes - offset)
            if rng.random() < 0.3:
                start = offset // self._unit * self._unit
                disk.discard(start, min(self._unit * 3, size_bytes - start))
            else:
                content = bytes(length) if rng.random() < 0.3 else rng.randbytes(length)
                disk.write(offset, content)

    @staticmethod
    def count(counts: dict[str, int], name: str) -> None:
        """Count one."""
        counts[name] = counts.get(name, 0) + 1

    async def settle(self) -> None:
        """Wait until everything that was served has ended."""
        await asyncio.gather(*self._serving, return_exceptions=True)


def _cancel(task: asyncio.Future[T]) -> None:
    task.cancel()
