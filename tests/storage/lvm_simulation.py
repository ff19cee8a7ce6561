"""LVM thin provisioning, simulated: as much of it as blockrep uses, in memory.

It answers the commands of :mod:`blockrep.storage.lvm.commands` as LVM 2.03.16, kernel 6.1 and
thin-provisioning-tools 0.9.0 were seen to answer them in virtual machines, where the same contract
runs on the real ones. What it is for: crashes between any two commands, in milliseconds.

What the kernel has not flushed is volatile: data by sectors of 512 bytes, which chunks a volume
maps until the pool commits (a sync, or a command that changes the pool). A snapshot does not flush
the data of its origin: nothing but a sync does.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from blockrep.errors import NoSpaceError, StorageError, VolumeError
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.runner import CommandRecord, CommandResult, describe_failure
from blockrep.storage.memory.host import Lands, honest

KIB = 1024
_SECTOR = 512


@dataclass(eq=False)
class Block:
    """A chunk of the pool's data, shared by whoever maps it.

    ``durable``: what a power cut leaves.
    """

    number: int
    content: bytearray = field(repr=False)
    durable: bytes = field(repr=False)
    writes: int = 0


@dataclass(eq=False)
class Lv:
    """One thin volume; ``mapping`` is by number of the chunk, ``committed`` as the disk has it."""

    name: str
    uuid: str
    size_bytes: int
    thin_id: int
    origin: Lv | None = None
    read_only: bool = False
    skipped: bool = False
    active: bool = True
    opened: int = 0
    merge_into: Lv | None = None
    tags: frozenset[str] = frozenset()
    mapping: dict[int, Block] = field(default_factory=dict, repr=False)
    committed: dict[int, Block] = field(default_factory=dict, repr=False)
    transaction: int = 0
    made: bool = True
    told: bool = True


@dataclass(eq=False)
class SimulatedGroup:
    """A volume group with one pool, ``pool``."""

    vg: str
    chunk_bytes: int
    extent_bytes: int = 256 * KIB
    total_chunks: int = 3200
    zeroes: bool = True
    discards: str = "passdown"
    mode: str = "rw"
    needs_check: bool = False
    queues_when_full: bool = True
    total_metadata_blocks: int = 4096
    external_lvs: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.volumes: dict[str, Lv] = {}
        self.held: tuple[int, dict[int, dict[int, Block]]] | None = None
        self.metadata_readers = 0
        self.foreign_metadata_blocks = 0
        self.transaction = 0
        self.held_transaction: int | None = None
        self.failing: set[str] = set()
        self.deaths = 0
        self.was_full = False
        self.lands: Lands = honest
        self._numbers = itertools.count(1)
        self._unflushed: dict[int, Block] = {}
        self.deleted: list[Lv] = []  # as LVM sees it; the pool is still to be told
        self.pool_uuid, self.vg_uuid = self._uuid(0), self._uuid(99)

    def uuid(self) -> str:
        """Return a new one."""
        return self._uuid(next(self._numbers))

    def _uuid(self, number: int) -> str:
        text = f"{self.vg:V<10}{number:022}"
        parts = (0, 6, 10, 14, 18, 22, 26, 32)
        return "-".join(text[a:b] for a, b in itertools.pairwise(parts))

    def blocks(self) -> set[Block]:
        """Return every chunk in use."""
        devices = [*self.volumes.values(), *self.deleted]
        used = {block for lv in devices for block in lv.mapping.values()}
        if self.held:
            used |= {block for mapping in self.held[1].values() for block in mapping.values()}
        return used

    @property
    def used_metadata_blocks(self) -> int:
        """How much metadata is used: some, two blocks for each volume, its own leaves.

        A leaf is of 126 chunks; volumes share those that are the same.
        """
        leaves: set[tuple[tuple[int, int], ...]] = set()
        for lv in (*self.volumes.values(), *self.deleted):
            mapped: dict[int, list[tuple[int, int]]] = {}
            for number, block in lv.mapping.items():
                mapped.setdefault(number // 126, []).append((number, block.number))
            leaves.update(tuple(sorted(one)) for one in mapped.values())
        return 100 + self.foreign_metadata_blocks + 2 * len(self.volumes) + len(leaves)

    def _take_metadata(self) -> None:
        """Take no more changes where there is no room for metadata, as the kernel does."""
        if self.used_metadata_blocks > self.total_metadata_blocks:
            self.was_full, self.mode = True, "ro"
            raise StorageError("the simulated pool has no room for metadata")

    def add(self, name: str, size_bytes: int, tags: Sequence[str] = ()) -> Lv:
        """Make an empty volume."""
        size_bytes = -(-size_bytes // self.extent_bytes) * self.extent_bytes
        lv = Lv(name, self.uuid(), size_bytes, next(self._numbers), tags=frozenset(tags))
        self.volumes[name] = lv
        lv.transaction = self.transaction
        self.transaction += 1
        self._take_metadata()
        return lv

    def note(self, lv: Lv) -> None:
        """Let LVM know a new volume, and the pool not yet: what a power cut may leave."""
        lv.made = lv.told = lv.active = False
        lv.mapping, lv.committed = {}, {}

    def make(self) -> None:
        """Have the pool make what LVM has noted: a snapshot is of what its origin holds now."""
        for lv in self.volumes.values():
            if not lv.made:
                lv.made = True
                lv.mapping = dict(lv.origin.mapping) if lv.origin else {}
                self.commit()

    def deliver(self) -> bool:
        """Tell the pool what LVM has noted; False: it has made a snapshot, and was told no more.

        Of an empty volume LVM expects that.
        """
        if any(lv.made and not lv.told and lv.origin for lv in self.volumes.values()):
            return False
        self.go_on()
        return True

    def go_on(self) -> None:
        """Do what a command of LVM that noted something does next."""
        self.make()
        self.deleted.clear()
        self.tell()

    def tell(self) -> None:
        """Tell the pool the number of LVM's transaction."""
        for lv in self.volumes.values():
            lv.told = True

    @property
    def told_transaction(self) -> int:
        """How many changes the pool was told of."""
        return self.transaction - bool(
            self.deleted or [lv for lv in self.volumes.values() if not lv.told]
        )

    def write(self, lv: Lv, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write, breaking the sharing of chunks."""
        at = 0
        while at < len(data):
            number, start = divmod(offset_bytes + at, self.chunk_bytes)
            count = min(self.chunk_bytes - start, len(data) - at)
            block = self._own(lv, number)
            block.content[start : start + count] = data[at : at + count]
            block.writes += 1
            self._unflushed[block.number] = block
            at += count

    def _own(self, lv: Lv, number: int) -> Block:
        block = lv.mapping.get(number)
        sharers = (one for one in self.volumes.values() if one is not lv)
        held = self.held[1].values() if self.held else ()
        maps = [*(one.mapping for one in sharers), *held]
        if block is not None and not any(one.get(number) is block for one in maps):
            return block
        if len(self.blocks()) >= self.total_chunks:
            self.was_full = True
            raise NoSpaceError("the simulated pool is full")
        # A pool that does not zero shows what somebody left.
        old = b"\0" if self.zeroes else b"\xee"
        content = old * self.chunk_bytes if block is None else block.content
        block = Block(next(self._numbers), bytearray(content), old * self.chunk_bytes)
        lv.mapping[number] = self._unflushed[block.number] = block
        self._take_metadata()
        return block

    def read(self, lv: Lv, offset_bytes: int, length_bytes: int) -> bytes:
        """Return content; what is not mapped is zeros."""
        first, start = divmod(offset_bytes, self.chunk_bytes)
        end = -(-(start + length_bytes) // self.chunk_bytes)
        blocks = [lv.mapping.get(number) for number in range(first, first + end)]
        zeros = bytes(self.chunk_bytes)
        found = b"".join([zeros if one is None else one.content for one in blocks])
        return found if len(found) == length_bytes else found[start : start + length_bytes]

    def discard(self, lv: Lv, offset_bytes: int, length_bytes: int) -> None:
        """Unmap the whole chunks of a range; the rest keeps its content.

        As the kernel does it: not at all in a pool that takes no changes, and not the first chunk
        where the chunk size is no power of two (of some ranges; here of all).
        """
        if self.mode in {"ro", "fail"}:
            return
        first = -(-offset_bytes // self.chunk_bytes)
        first += bool(self.chunk_bytes & (self.chunk_bytes - 1))
        for number in range(first, (offset_bytes + length_bytes) // self.chunk_bytes):
            lv.mapping.pop(number, None)

    def snapshot(self, origin: Lv, name: str, tags: Sequence[str] = ()) -> Lv:
        """Take a thin snapshot."""
        lv = self.add(name, origin.size_bytes, tags)
        lv.mapping, lv.origin = dict(origin.mapping), origin
        self.commit()
        return lv

    def commit(self) -> None:
        """Put on the disk which chunks every volume maps."""
        for lv in self.volumes.values():
            lv.committed = dict(lv.mapping)

    def sync(self, lv: Lv) -> None:
        """Flush what was written to a volume."""
        for block in lv.mapping.values():
            if self._unflushed.pop(block.number, None) is not None:
                block.durable = bytes(block.content)
        self.commit()

    def drop_unflushed(self, lv: Lv) -> bool:
        """Forget what was to be flushed, as the kernel does when that fails: readers still see it.

        It will never be on the disk, and the next sync succeeds. False: there was nothing.
        """
        found = [one for one in lv.mapping.values() if one.number in self._unflushed]
        for block in found:
            del self._unflushed[block.number]
        if found:
            self.failing.discard("sync")
        return bool(found)

    def lose_power(self, survives: Callable[[], bool]) -> None:
        """Take back what was not flushed, but for the sectors that survive: asked for each."""
        for lv in self.volumes.values():
            lv.mapping = dict(lv.committed)
        for block in self._unflushed.values():
            for start in range(0, self.chunk_bytes, _SECTOR):
                sector = slice(start, start + _SECTOR)
                old = block.durable[sector]
                if block.content[sector] != old and not survives():
                    block.content[sector] = old
            block.durable = bytes(block.content)
        self._unflushed.clear()

    def finish_merges(self, origin: Lv) -> None:
        """Merge what waits for the origin, if it is closed."""
        for lv in list(self.volumes.values()):
            if lv.merge_into is origin and not origin.opened and not lv.opened:
                origin.mapping, origin.size_bytes = lv.mapping, lv.size_bytes
                origin.committed, origin.thin_id = lv.committed, lv.thin_id
                origin.transaction = lv.transaction
                for one in self.volumes.values():
                    if one.origin is origin:
                        one.origin = None
                    elif one.origin is lv:
                        one.origin = origin
                del self.volumes[lv.name]

    def close_all(self) -> None:
        """Close what processes that died had open."""
        self.deaths += 1
        for lv in self.volumes.values():
            lv.opened = 0

    def restart(self) -> None:
        """Deactivate everything and activate it as a boot does; what is held stays held."""
        self.close_all()
        for lv in list(self.volumes.values()):
            self.finish_merges(lv)
            lv.active = not lv.skipped and lv.made


class SimulatedRunner:
    """Runs commands on simulated groups; ``step`` is told before each, and may raise."""

    def __init__(
        self, groups: Sequence[SimulatedGroup], step: Callable[[str], None] = lambda _name: None
    ) -> None:
        self._log: list[CommandRecord] = []
        self._groups = {group.vg: group for group in groups}
        self._step = step

    def take_log(self) -> list[CommandRecord]:
        log, self._log = self._log, []
        return log

    def run(self, argv: Sequence[str]) -> CommandResult:
        self._step(" ".join(argv[:2]))
        handler = getattr(self, f"_{argv[0]}")
        status, stdout, stderr = handler(list(argv[1:]))
        self._log.append(CommandRecord(tuple(argv), 0.0, status))
        return CommandResult(tuple(argv), status, stdout.encode(), stderr)

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        result = self.run(argv)
        yield result.stdout
        if result.status:
            raise StorageError(describe_failure(result))

    # -- lvs

    def _lvs(self, words: list[str]) -> tuple[int, str, str]:
        every = words[-2] == "-o"
        if not every and words[-1] not in self._groups:
            return 5, '{"report":[{"lv":[]}]}', f'  Volume group "{words[-1]}" not found'
        rows = []
        for group in self._groups.values() if every else [self._groups[words[-1]]]:
            rows += [_row(group, lv) for lv in group.volumes.values()]
            rows += [_pool_row(group), *(_base_row(group, one) for one in group.external_lvs)]
        texts = ", ".join(_json(tuple(row.items())) for row in rows)
        return 0, f'{{"report": [{{"lv": [{texts}]}}]}}', "  WARNING: Sum of all thin volumes"

    # -- changes

    def _lvcreate(self, words: list[str]) -> tuple[int, str, str]:
        full_name = _values(words, "-T")[0] if "-T" in words else words[-1]
        group = self._groups[full_name.partition("/")[0]]
        if not group.deliver():
            return _IN_THE_POOL
        before = set(group.volumes)
        status, stdout, stderr = self._create(words)
        for name in set(group.volumes) - before:
            lv = group.volumes[name]
            active = lv.active
            group.note(lv)
            self._step("lvcreate, noted")
            group.make()
            self._step("lvcreate, made")
            group.tell()
            lv.active = active
        return status, stdout, stderr

    def _create(self, words: list[str]) -> tuple[int, str, str]:
        tags = _values(words, "--addtag")
        (name,) = _values(words, "-n")
        if "-s" in words:
            group, origin = self._lv(words[-1])
            if origin is None:
                return _not_found(words[-1])
            if name in group.volumes:
                return 5, "", f'  Logical Volume "{name}" already exists in volume group'
            if group.mode == "out_of_data_space":
                pool = f"{group.vg}/pool"
                return 5, "", f"  Cannot create new thin volume, free space in thin pool {pool}"
            lv = group.snapshot(origin, name, tags)
            lv.read_only, lv.skipped = "-pr" in words, "-ky" in words
            lv.active = "-ay" in words
            return 0, "", ""
        (pool,) = _values(words, "-T")
        group = self._groups[pool.partition("/")[0]]
        group.add(name, int(_values(words, "-V")[0].rstrip("b")), tags)
        return 0, "", ""

    def _lvchange(self, words: list[str]) -> tuple[int, str, str]:
        group, lv = self._lv(words[-1])
        if words[-1].endswith("/pool"):
            return 0, "", ""
        if lv is None:
            return _not_found(words[-1])
        if lv.merge_into is not None:
            return 5, "", "  Operation not permitted on hidden LV"
        if "-pr" in words:
            if lv.read_only:
                return 5, "", f'  Logical volume "{words[-1]}" is already read only.'
            lv.read_only = True
        lv.tags |= set(_values(words, "--addtag"))
        lv.tags -= set(_values(words, "--deltag"))
        if "--refresh" in words and lv.active:
            group.finish_merges(lv)
        if "-ay" in words and not lv.made:
            return 5, "", "  device-mapper: reload ioctl on  (253:6) failed: No data available"
        if "-ay" in words:
            if not lv.active:
                group.finish_merges(lv)
            lv.active = lv.active or not lv.skipped or "-K" in words
        if "-an" in words:
            if lv.opened:
                return 5, "", f"  Logical volume {words[-1]} in use."
            lv.active = False
        return 0, "", ""

    def _lvconvert(self, words: list[str]) -> tuple[int, str, str]:
        group, lv = self._lv(words[-1])
        if lv is None or lv.origin is None or lv.merge_into is not None:
            return 5, "", f"  {words[-1]} is not a mergeable logical volume."
        if any(one.get("origin") == lv.origin.name for one in group.external_lvs):
            origin = f"{group.vg}/{lv.origin.name}"
            return 5, "", f"  Merging into the old snapshot origin {origin} is not supported."
        if not group.deliver():
            return _IN_THE_POOL
        lv.merge_into, lv.active = lv.origin, False
        group.finish_merges(lv.origin)
        return 0, "", ""

    def _lvrename(self, words: list[str]) -> tuple[int, str, str]:
        group, lv = self._lv(words[0])
        name = words[1].partition("/")[2]
        if lv is None:
            return _not_found(words[0])
        if name in group.volumes:
            return 5, "", f'  Logical Volume "{name}" already exists'
        group.volumes[name] = group.volumes.pop(lv.name)
        lv.name = name
        return 0, "", ""

    def _lvremove(self, words: list[str]) -> tuple[int, str, str]:
        group, lv = self._lv(words[-1])
        if lv is None:
            return _not_found(words[-1])
        (selection,) = _values(words, "-S")
        uuid = re.search(r"lv_uuid=(\S+)", selection)
        wanted = re.findall(r'"([^"]+)"', selection)
        assert uuid is not None
        assert wanted
        if uuid[1] != lv.uuid or not lv.tags.issuperset(wanted):
            return 0, "", ""  # as LVM: nothing matches, nothing is said
        if lv.opened:
            return 5, "", f"  Logical volume {words[-1]} in use."
        was_told = lv.told
        delivered = group.deliver()
        if not (delivered or was_told or "-ff" in words):
            return _IN_THE_POOL
        del group.volumes[lv.name]
        # Unasked, as LVM does under -y: thick snapshots, and what has it as its external origin.
        group.external_lvs = [one for one in group.external_lvs if one.get("origin") != lv.name]
        if delivered:
            group.transaction += 1
            return 0, "", ""
        # LVM has noted it; of what was to be made, that it is to be deleted instead.
        group.deleted.append(lv)
        return _IN_THE_POOL if was_told else (0, "", "")

    def _lvextend(self, words: list[str]) -> tuple[int, str, str]:
        group, lv = self._lv(words[-1])
        assert lv is not None
        size_bytes = int(_values(words, "-L")[0].rstrip("b"))
        size_bytes = -(-size_bytes // group.extent_bytes) * group.extent_bytes
        if size_bytes == lv.size_bytes:
            return 5, "", "  New size matches existing size"
        lv.size_bytes = size_bytes  # what was mapped past the end stays mapped
        return 0, "", ""

    def _lvreduce(self, words: list[str]) -> tuple[int, str, str]:
        """Do so as LVM since 2.03.17: not without being told to let file systems be cut off."""
        if words == ["--help"]:
            return 0, "  lvreduce -L|--size [-]Size[m|UNIT] LV\n\t[    --fs String ]\n", ""
        if _values(words, "--fs") != ["ignore"]:
            return 5, "", "  File system reduce is required (see resize2fs or --resizefs)."
        return self._lvextend(words)

    # -- device-mapper and the thin tools

    def _dmsetup(self, words: list[str]) -> tuple[int, str, str]:
        if words[0] == "status":
            return self._status(words[-1])
        if words[0] == "info":
            return 0, f"{1 + self._pool(words[-1]).metadata_readers}\n", ""
        group = self._pool(words[1])
        if group.mode not in {"rw", "out_of_data_space"}:
            return 1, "", "device-mapper: message ioctl failed: Operation not supported"
        if words[-1] == "reserve_metadata_snap":
            if group.held:
                return 1, "", "device-mapper: message ioctl failed: Device or resource busy"
            made = [lv for lv in group.volumes.values() if lv.made]
            mappings = {lv.thin_id: dict(lv.mapping) for lv in made}
            group.held = (next(group._numbers), mappings)
            group.held_transaction = group.told_transaction
        elif group.held is None:
            return 1, "", "device-mapper: message ioctl failed: Invalid argument"
        else:
            group.held = group.held_transaction = None
        return 0, "", ""

    def _status(self, device: str) -> tuple[int, str, str]:
        if not device.endswith("-tpool"):
            vg, _, name = device.replace("--", "\0").partition("-")
            group = self._groups[vg.replace("\0", "-")]
            lv = group.volumes.get(name.replace("\0", "-"))
            if lv is None or not lv.active:
                return 1, "", "Device does not exist."
            mapped = len(lv.mapping) * group.chunk_bytes // _SECTOR
            return 0, f"0 {lv.size_bytes // _SECTOR} thin {mapped} 0", ""
        group = self._pool(device)
        used = len(group.blocks())
        held = group.held[0] if group.held else "-"
        check = "needs_check" if group.needs_check else "-"
        metadata = f"{group.used_metadata_blocks}/{group.total_metadata_blocks}"
        words = f"thin-pool {group.told_transaction} {metadata} {used}/{group.total_chunks} {held}"
        return 0, f"0 1 {words} {group.mode} discard_passdown queue_if_no_space {check} 1024 ", ""

    def _thin_delta(self, words: list[str]) -> tuple[int, str, str]:
        group = self._pool(words[-1].rpartition("/")[2])
        if group.held is None:
            return 1, "", "no current metadata snap"
        ids = [int(_values(words, option)[0]) for option in ("--thin1", "--thin2")]
        if not group.held[1].keys() >= set(ids):
            return 1, "", "device not found"
        left, right = (group.held[1][one] for one in ids)
        lines = []
        for number in sorted(left.keys() | right.keys()):
            name = "different"
            if number not in right:
                name = "left_only"
            elif number not in left:
                name = "right_only"
            elif left[number] is right[number]:
                name = "same"
            lines.append(f'<{name} begin="{number}" length="1"/>')
        return 0, self._xml(group, f'<diff left="1" right="2">{"".join(lines)}</diff>'), ""

    def _thin_dump(self, words: list[str]) -> tuple[int, str, str]:
        group = self._pool(words[-1].rpartition("/")[2])
        if group.held is None:
            return 1, "", "no current metadata snap"
        mapping = group.held[1].get(int(_values(words, "--dev-id")[0]))
        if mapping is None:
            return 0, self._xml(group, ""), ""
        lines = (
            f'<single_mapping origin_block="{number}" data_block="{block.number}" time="0"/>'
            for number, block in sorted(mapping.items())
        )
        return 0, self._xml(group, f'<device dev_id="1">{"".join(lines)}</device>'), ""

    def _xml(self, group: SimulatedGroup, body: str) -> str:
        chunk = group.chunk_bytes // _SECTOR
        held = group.held_transaction
        transaction = group.told_transaction if held is None else held
        head = f'transaction="{transaction}" data_block_size="{chunk}"'
        return f'<superblock uuid="" time="1" {head} nr_data_blocks="0">{body}</superblock>'

    def _lv(self, full_name: str) -> tuple[SimulatedGroup, Lv | None]:
        vg, _, name = full_name.partition("/")
        return self._groups[vg], self._groups[vg].volumes.get(name)

    def _pool(self, device: str) -> SimulatedGroup:
        return self._groups[_group_of(device)]


class SimulatedDevice:
    """Stands in for :class:`blockrep.storage.lvm.device.BlockDevice`."""

    #: The simulated machine: what devices are opened on.
    groups: dict[str, SimulatedGroup]
    step: Callable[[str], None]

    def __init__(self, volume: LogicalVolume, *, writable: bool) -> None:
        self._group = self.groups[volume.vg]
        self._lv = self._group.volumes[volume.name]
        self.path = f"/dev/mapper/{volume.vg}-{volume.name}"
        if not self._lv.active or self._lv.uuid != volume.uuid:
            raise VolumeError("cannot be opened", where=self.path)
        assert not (writable and self._lv.opened)
        self._lv.opened += 1
        self._deaths = self._group.deaths
        self.size_bytes = self._lv.size_bytes

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        type(self).step(f"read {self.path}")
        if "read" in self._group.failing:
            raise StorageError("reading failed: Input/output error", where=self.path)
        buffer[:] = self._group.read(self._lv, offset_bytes, len(buffer))

    def write(self, offset_bytes: int, data: memoryview) -> None:
        type(self).step(f"write {self.path}")
        if "write" in self._group.failing:
            raise NoSpaceError("no room")
        assert not self._lv.read_only
        assert offset_bytes + len(data) <= self.size_bytes
        lands_at = self._group.lands(offset_bytes, len(data))
        if lands_at != offset_bytes:  # it is the disk that lies: the pool has mapped the chunk
            stale = self._group.read(self._lv, offset_bytes, len(data))
            self._group.write(self._lv, offset_bytes, stale)
        if lands_at is not None:
            self._group.write(self._lv, lands_at, data)

    def write_zeros(self, offset_bytes: int, length_bytes: int) -> None:
        if length_bytes:
            self.write(offset_bytes, memoryview(bytes(length_bytes)))

    def discard(self, offset_bytes: int, length_bytes: int) -> bool:
        type(self).step(f"discard {self.path}")
        if self._group.discards == "ignore":
            return False
        self._group.discard(self._lv, offset_bytes, length_bytes)
        return True

    def sync(self) -> None:
        type(self).step(f"sync {self.path}")
        if "sync" in self._group.failing and self._group.drop_unflushed(self._lv):
            raise StorageError("what was written could not be made durable")
        self._group.sync(self._lv)

    def close(self) -> None:
        if self._deaths == self._group.deaths:
            self._lv.opened -= 1


_IN_THE_POOL = (5, "", "  Thin pool already contain thin device. Failed to update pool.")
_EMPTY_ROW = dict.fromkeys(
    (
        "lv_size", "pool_lv", "pool_lv_uuid", "thin_id", "origin", "lv_active", "lv_merging",
        "lv_device_open", "lv_tags", "discards", "zero", "lv_when_full", "lv_health_status",
        "transaction_id",
    ),
    "",
)  # fmt: skip


def _base_row(group: SimulatedGroup, values: dict[str, str]) -> dict[str, str]:
    return {
        **_EMPTY_ROW,
        "vg_name": group.vg,
        "vg_uuid": group.vg_uuid,
        "vg_extent_size": str(group.extent_bytes),
        "lv_permissions": "writeable",
        "chunk_size": "0",
        **values,
    }


@functools.lru_cache(maxsize=1000)
def _json(row: tuple[tuple[str, str], ...]) -> str:
    """Return a row's text; most rows are as they were when they were last asked for."""
    return json.dumps(dict(row))


def _row(group: SimulatedGroup, lv: Lv) -> dict[str, str]:
    return _base_row(
        group,
        {
            "lv_name": f"[{lv.name}]" if lv.merge_into else lv.name,
            "lv_uuid": lv.uuid,
            "lv_size": str(lv.size_bytes),
            "lv_layout": "thin,sparse",
            "pool_lv": "pool",
            "pool_lv_uuid": group.pool_uuid,
            "thin_id": str(lv.thin_id),
            "origin": lv.origin.name if lv.origin else "",
            "lv_permissions": "read-only" if lv.read_only else "writeable",
            "lv_active": "active" if lv.active else "",
            "lv_device_open": "open" if lv.opened else "",
            "lv_merging": "merging" if lv.merge_into else "",
            "lv_tags": ",".join(sorted(lv.tags)),
            "transaction_id": str(lv.transaction),
        },
    )


def _pool_row(group: SimulatedGroup) -> dict[str, str]:
    return _base_row(
        group,
        {
            "lv_name": "pool",
            "lv_uuid": group.pool_uuid,
            "lv_size": str(group.total_chunks * group.chunk_bytes),
            "lv_layout": "thin,pool",
            "lv_active": "active",
            "chunk_size": str(group.chunk_bytes),
            "discards": group.discards,
            "zero": "zero" if group.zeroes else "",
            "lv_when_full": "queue" if group.queues_when_full else "error",
            "transaction_id": str(group.transaction),
        },
    )


@functools.lru_cache(maxsize=100)
def _group_of(device: str) -> str:
    return re.split(r"(?<!-)-(?!-)", device)[0].replace("--", "-")


def _values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def _not_found(name: str) -> tuple[int, str, str]:
    return 5, "", f'  Failed to find logical volume "{name}"'
