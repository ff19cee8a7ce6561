"""The disk of a simulated host: what its user does with it, what breaks, and what is on it.

Two kinds behind one interface, so that one scenario runs on both: volumes in memory, and simulated
LVM. What the checkers see is read off the simulated hardware (and the record of the cursor), never
asked of the code under test.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blockrep.errors import StorageError
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.storage.interface import SourceVolume, StorageSettings, TargetVolume
from blockrep.storage.lvm.cursors import CursorFile
from blockrep.storage.lvm.runner import CommandResult, OutcomeUnknownError
from blockrep.storage.lvm.source import LvmSource
from blockrep.storage.lvm.target import LvmTarget
from blockrep.storage.memory import MemoryHost, MemorySource, MemoryTarget
from blockrep.storage.memory.disk import MemoryReader, PagedFile
from blockrep.storage.memory.host import Lands, Volume, honest
from storage.lvm_simulation import Block, Lv, SimulatedGroup, SimulatedRunner

KIB = 1024
#: Everything of a staging volume of ours, but the tag that says so.
_LOOKALIKE = [
    f"blockrep.{tag}"
    for tag in (
        "role=staging", "lineage=00", "id=00", "seq=1", "created=1", "size=4096", "mode=full",
        "of=", "replica=copy", "base=", "state=ready",
    )
]  # fmt: skip
_FOREIGN: tuple[int, dict[int, dict[int, Block]]] = (1 << 40, {})
Step = Callable[[str], None]


class Content(Protocol):
    """Content on the disk."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, end_bytes: int) -> bytes:
        """Return the content up to ``end_bytes``, as a reader sees it."""

    def durable(self, end_bytes: int) -> bytes:
        """Return what a power cut now would leave for certain."""

    def mark(self) -> object:
        """Return something that changes when the content does."""

    def is_as(self, mark: object) -> bool:
        """Tell whether the content did not change since it had that mark."""


@dataclass(slots=True)
class Taken:
    """A snapshot at the source."""

    committed: bool
    content: Content


@dataclass(slots=True)
class Good:
    """A good snapshot at the target."""

    digest: str
    size_bytes: int
    content: Content


@dataclass(frozen=True)
class Staged:
    """The staging volume and what is recorded of it."""

    snapshot_id: str
    cursor_bytes: int
    content: Content


class Disk(Protocol):
    """The disk of a host with one volume, which is a source, a target, or a target to be."""

    chunk_bytes: int

    def source(self) -> SourceVolume: ...
    def target(self) -> TargetVolume: ...

    # What its user does.
    def create(self, size_bytes: int) -> None: ...
    def size_bytes(self) -> int: ...
    def write(self, offset_bytes: int, data: bytes) -> None: ...
    def discard(self, offset_bytes: int, length_bytes: int) -> None: ...
    def grow(self, size_bytes: int) -> None: ...
    def forget_bases(self) -> None:
        """Remove every snapshot of the source, as an administrator who needs room does."""

    def forget_pending(self, good_ids: Collection[str]) -> None:
        """Remove the snapshots of unfinished transfers, if there is an older one."""

    # What breaks.
    def kill(self) -> None:
        """Let the host's processes die; the kernel loses nothing."""

    def crash(self, survives: Callable[[], bool]) -> None:
        """Lose power, but for the unflushed sectors that survive: asked for each."""

    def fail(self, what: str) -> None:
        """Let ``read`` or ``sync`` fail until :meth:`repair`; ``sync once``: one time."""

    def fill(self, free_chunks: int) -> None:
        """Let somebody else take the room, but for so many chunks."""

    def lie(self, lands: Lands) -> None:
        """Put what is written to staging where that says, until :meth:`repair`."""

    def repair(self) -> None:
        """End what these began."""

    def spoil(self, rng: random.Random) -> bool:
        """Change a byte of the newest good snapshot, as a disk that lies does; False: none."""

    # What is there: the same objects as long as it is the same.
    def taken(self) -> dict[str, Taken]: ...
    def goods(self) -> dict[str, Good]:
        """Return the good snapshots, oldest first."""

    def staged(self) -> Staged | None: ...
    def live(self) -> Content | None: ...
    def overfilled(self) -> bool:
        """Tell whether a write ever found no room."""

    def trespasses(self) -> str:
        """Name what is not ours and was touched."""

    def unfinished(self) -> str:
        """Name what should not be there between two runs."""


@dataclass(slots=True)
class Pages:
    """Content in memory."""

    file: PagedFile

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    def read(self, end_bytes: int) -> bytes:
        return self.file.read(0, end_bytes)

    def durable(self, end_bytes: int) -> bytes:
        return self.file.after_crash().read(0, end_bytes)

    def mark(self) -> object:
        return dict(self.file.pages)

    def is_as(self, mark: object) -> bool:
        return self.file.pages == mark


class _MemorySource(MemorySource):
    """A source whose disk may fail."""

    def __init__(self, host: MemoryHost, name: str, failing: set[str]) -> None:
        super().__init__(host, name)
        self._failing = failing

    def open_snapshot(self, snapshot: Snapshot) -> MemoryReader:
        if "read" in self._failing:
            raise StorageError("reading failed: Input/output error")
        return super().open_snapshot(snapshot)


class MemoryDisk:
    """See :class:`Disk`; the volume is called ``NAME/copy``."""

    def __init__(self, rng: random.Random, name: str, step: Step) -> None:
        self._name = f"{name}/copy"
        self.chunk_bytes = rng.choice([4, 16, 64]) * KIB
        align_bytes = self.chunk_bytes if rng.random() < 0.3 else 1
        self._host = MemoryHost(name, chunk_bytes=self.chunk_bytes, align_bytes=align_bytes)
        self._host.on_step = step
        self.failing: set[str] = set()
        self._seen_snapshots: dict[str, tuple[Snapshot, PagedFile]] = {}
        self._seen_goods: list[tuple[str, tuple[Snapshot, PagedFile]]] = []
        self._taken: dict[str, Taken] = {}
        self._goods: dict[str, Good] = {}

    def create(self, size_bytes: int) -> None:
        self._host.create_volume(self._name, size_bytes)

    def source(self) -> SourceVolume:
        return _MemorySource(self._host, self._name, self.failing)

    def target(self) -> TargetVolume:
        return MemoryTarget(self._host, self._name)

    def size_bytes(self) -> int:
        assert self._volume.live is not None
        return self._volume.live.size_bytes

    def write(self, offset_bytes: int, data: bytes) -> None:
        self._host.write(self._name, offset_bytes, data)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self._host.discard(self._name, offset_bytes, length_bytes)

    def grow(self, size_bytes: int) -> None:
        self._host.resize(self._name, size_bytes)

    def forget_bases(self) -> None:
        self._volume.snapshots.clear()

    def forget_pending(self, good_ids: Collection[str]) -> None:
        snapshots = self._volume.snapshots
        pending = {name for name, (one, _) in snapshots.items() if not one.committed}
        if snapshots.keys() > pending:
            for name in pending.difference(good_ids):
                del snapshots[name]

    def kill(self) -> None:
        self._host.crash(lambda _offset: True)

    def crash(self, survives: Callable[[], bool]) -> None:
        self._host.crash(lambda _offset: survives())

    def fail(self, what: str) -> None:
        if what.startswith("sync"):
            self._host.fail_syncs(1 if what == "sync once" else 1000)
        else:
            self.failing.add(what)

    def fill(self, free_chunks: int) -> None:
        self._host.capacity_bytes = self._host.used_bytes() + free_chunks * self.chunk_bytes

    def lie(self, lands: Lands) -> None:
        self._host.lands = lands

    def repair(self) -> None:
        self.failing.clear()
        self._host.fail_syncs(0)
        self._host.capacity_bytes = None
        self._host.lands = honest

    def spoil(self, rng: random.Random) -> bool:
        for _, file in reversed(self._volume.goods.values()):
            if file.pages:
                number = rng.choice(sorted(file.pages))
                page = bytearray(file.pages[number])
                page[rng.randrange(min(512, len(page)))] ^= 1
                file.pages[number] = bytes(page)
                return True
            break
        return False

    @property
    def _volume(self) -> Volume:
        return self._host.volume(self._name)

    def taken(self) -> dict[str, Taken]:
        snapshots = self._volume.snapshots
        if snapshots != self._seen_snapshots:
            self._seen_snapshots = snapshots.copy()
            self._taken = {
                name: Taken(one.committed, Pages(file)) for name, (one, file) in snapshots.items()
            }
        return self._taken

    def goods(self) -> dict[str, Good]:
        goods = list(self._volume.goods.items())
        if goods != self._seen_goods:
            self._seen_goods = goods
            self._goods = {
                name: Good(one.digest, one.size_bytes, Pages(file)) for name, (one, file) in goods
            }
        return self._goods

    def staged(self) -> Staged | None:
        stage = self._volume.stage
        if stage is None:
            return None
        return Staged(stage.info.snapshot_id, stage.info.cursor_bytes, Pages(stage.content))

    def live(self) -> Content | None:
        live = self._volume.live
        return None if live is None else Pages(live)

    def overfilled(self) -> bool:
        capacity = self._host.capacity_bytes
        return capacity is not None and self._host.used_bytes() > capacity

    def trespasses(self) -> str:
        return ""

    def unfinished(self) -> str:
        return ""


@dataclass(slots=True)
class Chunks:
    """Content of a simulated logical volume, up to the size that is of interest."""

    group: SimulatedGroup
    lv: Lv
    size_bytes: int

    def read(self, end_bytes: int) -> bytes:
        return self.group.read(self.lv, 0, end_bytes)

    def durable(self, end_bytes: int) -> bytes:
        chunk_bytes = self.group.chunk_bytes
        zeros = bytes(chunk_bytes)
        blocks = (self.lv.committed.get(number) for number in range(-(-end_bytes // chunk_bytes)))
        return b"".join(zeros if one is None else one.durable for one in blocks)[:end_bytes]

    def mark(self) -> object:
        mapping = self.lv.mapping
        return {number: (block.number, block.writes) for number, block in mapping.items()}

    def is_as(self, mark: object) -> bool:
        return self.mark() == mark


class DisturbedRunner(SimulatedRunner):
    """Runs commands of which one may fail.

    ``fails`` tells it by its status; ``late`` and ``lost`` do not end in time, with their effect
    and without.
    """

    disturb_in = 0
    disturbance = ""
    #: Whether that hit a deactivation: the run after it finishes what this one gave up.
    left_active = False

    def run(self, argv: Sequence[str]) -> CommandResult:
        if argv[0] == "lvs" or argv[1] == "status" or not self.disturb_in:
            return super().run(argv)
        self.disturb_in -= 1
        if self.disturb_in:
            return super().run(argv)
        self.left_active = "-an" in argv
        if self.disturbance == "fails":
            return CommandResult(tuple(argv), 5, b"", "  device-mapper: reload ioctl failed")
        if self.disturbance == "late":
            super().run(argv)
        raise OutcomeUnknownError(f"{argv[0]} did not end in time")


class LvmDisk:
    """See :class:`Disk`; the volume is called ``NAME/copy``."""

    def __init__(self, rng: random.Random, name: str, step: Step, folder: Path) -> None:
        self.chunk_bytes = rng.choice([64, 128]) * KIB
        discards = rng.choice(["passdown", "passdown", "ignore"])
        self.group = SimulatedGroup(
            name, self.chunk_bytes, zeroes=rng.random() < 0.7, discards=discards, total_chunks=4096
        )
        self._name = VolumeName(vg=name, lv="copy")
        self._runner = DisturbedRunner([self.group], step)
        self._foreign_holds = False
        #: Good snapshots that processes were reading when they died: they stay active, read-only.
        self._left_by_the_dead: set[str] = set()
        self._planted = {
            name: self.group.add(name, 4096, tags)
            for name, tags in (
                ("br_t_00000000_1_00000000", _LOOKALIKE),
                ("br_g_00000000_9_00000000", ["blockrep.role=good"]),
                ("br_s_00000000_1_00000000", ["blockrep.role=source"]),
                ("vm-100-disk-0", []),
            )
        }
        self._seen: list[tuple[Lv, bool, frozenset[str], int]] = []
        self._taken: dict[str, Taken] = {}
        self._goods: dict[str, Good] = {}
        self._settings = StorageSettings(folder / name / "state", folder / name / "run")

    def create(self, size_bytes: int) -> None:
        self.group.add("copy", size_bytes)

    def source(self) -> SourceVolume:
        return LvmSource(self._name, self._settings, self._runner)

    def target(self) -> TargetVolume:
        return LvmTarget(self._name, self._settings, self._runner)

    def size_bytes(self) -> int:
        return self._live.size_bytes

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.group.write(self._live, offset_bytes, data)
        self.group.sync(self._live)

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        self.group.discard(self._live, offset_bytes, length_bytes)
        self.group.commit()

    def grow(self, size_bytes: int) -> None:
        extent_bytes = self.group.extent_bytes
        self._live.size_bytes = -(-size_bytes // extent_bytes) * extent_bytes

    def forget_bases(self) -> None:
        for lv, _ in self._of_role("source"):
            del self.group.volumes[lv.name]

    def forget_pending(self, good_ids: Collection[str]) -> None:
        found = self._of_role("source")
        pending = [(lv, tags) for lv, tags in found if tags["state"] == "pending"]
        if len(found) > len(pending):
            for lv, tags in pending:
                if tags["id"] not in good_ids:
                    del self.group.volumes[lv.name]

    def kill(self) -> None:
        self.group.go_on()  # LVM's command goes on without us
        goods = [lv for lv, _ in self._of_role("good")]
        self._left_by_the_dead |= {lv.name for lv in goods if lv.active}
        self.group.close_all()

    def crash(self, survives: Callable[[], bool]) -> None:
        self.group.lose_power(survives)
        self.group.restart()
        shutil.rmtree(self._settings.runtime_directory, ignore_errors=True)

    def fail(self, what: str) -> None:
        # A sync fails once either way: the kernel then has forgotten what was to be written.
        self.group.failing.add(what.removesuffix(" once"))

    def fill(self, free_chunks: int) -> None:
        self.group.total_chunks = len(self.group.blocks()) + free_chunks

    def fill_metadata(self, free_blocks: int) -> None:
        """Let somebody else take the room for metadata, but for so many blocks."""
        group = self.group
        left = group.total_metadata_blocks - group.used_metadata_blocks - free_blocks
        group.foreign_metadata_blocks += max(left, 0)

    def lie(self, lands: Lands) -> None:
        self.group.lands = lands

    def repair(self) -> None:
        self.group.failing.clear()
        self.group.total_chunks = 4096
        self.group.foreign_metadata_blocks = 0
        self.group.lands = honest

    def disturb_command(self, rng: random.Random) -> None:
        """Let one of the next changing commands fail or not end in time."""
        self._runner.disturb_in = rng.randint(1, 8)
        self._runner.disturbance = rng.choice(["fails", "late", "lost"])

    def hold_metadata(self) -> None:
        """Let another program have the metadata snapshot, and read it."""
        if self.group.held is None:
            self.group.held = _FOREIGN
            self.group.metadata_readers = 1
            self._foreign_holds = True

    def end_disturbances(self) -> None:
        """End what these two began."""
        self._runner.disturb_in = 0
        self._runner.left_active = False
        self._foreign_holds = False
        self.group.metadata_readers = 0
        if self.group.held is _FOREIGN:
            self.group.held = None

    def spoil(self, rng: random.Random) -> bool:
        goods = self._of_role("good")
        mapping = goods[-1][0].mapping if goods else {}
        if not mapping:
            return False
        mapping[rng.choice(sorted(mapping))].content[0] ^= 1
        return True

    @property
    def _live(self) -> Lv:
        return self.group.volumes["copy"]

    def _of_role(self, role: str) -> list[tuple[Lv, dict[str, str]]]:
        wanted = {"blockrep", f"blockrep.role={role}"}
        volumes = self.group.volumes.values()
        found = [(lv, _tags(lv)) for lv in volumes if lv.made and lv.tags >= wanted]
        return sorted(found, key=lambda one: int(one[1].get("order", "0")))

    def _look(self) -> None:
        """Find what is ours, unless there is what there was the last time."""
        volumes = self.group.volumes.values()
        seen = [(lv, lv.made, lv.tags, lv.size_bytes) for lv in volumes]
        if seen == self._seen:
            return
        self._seen, group = seen, self.group
        self._taken = {
            tags["id"]: Taken(tags["state"] == "base", Chunks(group, lv, lv.size_bytes))
            for lv, tags in self._of_role("source")
        }
        self._goods = {}
        for lv, tags in self._of_role("good"):
            size_bytes = int(tags["size"])
            content = Chunks(group, lv, size_bytes)
            self._goods[tags["id"]] = Good(tags["digest"], size_bytes, content)

    def taken(self) -> dict[str, Taken]:
        self._look()
        return self._taken

    def goods(self) -> dict[str, Good]:
        self._look()
        return self._goods

    def staged(self) -> Staged | None:
        for lv, tags in self._of_role("staging"):
            if tags.get("state") == "ready" and not lv.merge_into:
                plan = bytes.fromhex(tags.get("plan", ""))
                file = CursorFile(self._settings.state_directory, lv.uuid, self.group.vg_uuid)
                cursor = file.load(plan)
                content = Chunks(self.group, lv, int(tags["size"]))
                return Staged(tags["id"], cursor.cursor_bytes if cursor else 0, content)
        return None

    def live(self) -> Content | None:
        lv = self.group.volumes.get("copy")
        return None if lv is None else Chunks(self.group, lv, lv.size_bytes)

    def overfilled(self) -> bool:
        return self.group.was_full

    def trespasses(self) -> str:
        if self._foreign_holds and self.group.held is not _FOREIGN:
            return "the metadata snapshot that another program reserved"
        if self._planted.keys() <= self.group.volumes.keys():
            return ""
        return ", ".join(sorted(self._planted.keys() - self.group.volumes.keys()))

    def unfinished(self) -> str:
        if self.group.held is not None and self.group.held is not _FOREIGN:
            return "a reserved metadata snapshot"
        busy = [lv.name for lv in self.group.volumes.values() if lv.opened]
        if not self._runner.left_active:
            active = [lv.name for lv in self.group.volumes.values() if lv.skipped and lv.active]
            busy += [name for name in active if name not in self._left_by_the_dead]
        return ", ".join(busy)


def _tags(lv: Lv) -> dict[str, str]:
    """Return our tags by name."""
    return dict(
        tag.removeprefix("blockrep.").split("=", 1)
        for tag in lv.tags
        if tag.startswith("blockrep.")
    )
