"""A volume in memory as the target.

It checks, at every step, what no comparison at the end would find: only staging is written (I3,
I4), and a cursor is recorded only once everything below it is durable (I1). It raises
:class:`blockrep.errors.InternalError` if not.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection

from blockrep.errors import (
    BlockrepError,
    DivergedError,
    InternalError,
    NoSpaceError,
    StorageError,
    VolumeError,
)
from blockrep.model.extents import Extent, ExtentSummary
from blockrep.model.snapshots import Replica, Snapshot, Space, StagingInfo, VolumeInfo
from blockrep.protocol.chain import first_chain
from blockrep.storage.interface import BeginRequest, Costs, Staging
from blockrep.storage.memory.disk import MemoryReader, PagedFile
from blockrep.storage.memory.host import MemoryHost, Stage, Volume

__all__ = ["MemoryStaging", "MemoryTarget"]


class MemoryStaging:
    """See :class:`blockrep.storage.interface.Staging`."""

    def __init__(self, host: MemoryHost, volume: Volume, stage: Stage) -> None:
        self.info = stage.info
        self.stage = stage
        self._host = host
        self._volume = volume
        self._boot = host.boots
        self._poison: BlockrepError | None = None
        self._closed = False

    def set_plan(self, plan: ExtentSummary, new_chunks: int) -> None:
        """Bind an adoption's staging to its plan."""
        self._check_usable()
        refuse_without_room(plan, new_chunks, self._host.space())
        chain = first_chain(self.info.snapshot_id, plan.digest)
        self._record(dataclasses.replace(self.info, plan_digest=plan.digest, chain=chain))

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write DATA into the cache."""
        self._check_usable()
        self._check_room(len(data))
        lands_at = self._host.lands(offset_bytes, len(data))
        if lands_at is not None:
            self.stage.content.write(lands_at, bytes(data))

    def clear(self, extent: Extent) -> None:
        """Make an extent read as zeros."""
        self._check_usable()
        chunk_bytes = self._host.chunk_bytes
        if extent.offset_bytes % chunk_bytes or extent.end_bytes % chunk_bytes:
            self._check_room(chunk_bytes)  # ragged edges are written
        self.stage.content.clear(extent.offset_bytes, extent.length_bytes)

    def sync(self) -> None:
        """Make durable what is in the cache. A failure drops the staging volume."""
        self._check_usable()
        if self._host.take_sync_failure():
            self._volume.stage = None
            self._poison = StorageError(
                "syncing failed: Input/output error",
                where=self._host.name,
                safe="the replica and its snapshots are untouched",
                next_step="run the push again",
            )
            raise self._poison
        self.stage.content.sync()

    def save_cursor(self, cursor_bytes: int, chain: bytes) -> None:
        """Record how far everything is durable; checks that it is (I1)."""
        self._check_usable()
        page_bytes = self.stage.content.page_bytes
        volatile = [one for one in self.stage.content.unsynced if one * page_bytes < cursor_bytes]
        if volatile:
            msg = f"cursor {cursor_bytes}, but page {min(volatile)} is not durable (I1)"
            raise InternalError(msg, where=self._host.name)
        self._record(dataclasses.replace(self.info, cursor_bytes=cursor_bytes, chain=chain))

    def space(self) -> Space:
        """Return the room left."""
        return self._host.space()

    def reader(self) -> MemoryReader:
        """Read the present content."""
        self._check_usable()
        return MemoryReader(self.stage.content)

    def close(self) -> None:
        """Close it; the staging volume stays."""
        self._closed = True

    def _record(self, info: StagingInfo) -> None:
        self.info = self.stage.info = info

    def _check_room(self, length_bytes: int) -> None:
        """Fail, as a full disk does, where what is written might not fit."""
        need_bytes = length_bytes + self._host.chunk_bytes
        capacity = self._host.capacity_bytes
        if capacity is not None and self._host.space().free_bytes < need_bytes:
            self._poison = NoSpaceError(
                "writing failed: No space left on device",
                where=self._host.name,
                safe="the replica and its snapshots are untouched",
                next_step="make room, then run the push again",
            )
            raise self._poison

    def _check_usable(self) -> None:
        if self._poison is not None:
            raise StorageError(f"not used any more after an error: {self._poison.what}")
        if self._closed or self._boot != self._host.boots or self._volume.stage is not self.stage:
            msg = "the staging volume is closed, gone, or from before a crash"
            raise InternalError(msg, where=self._host.name)


class MemoryTarget:
    """See :class:`blockrep.storage.interface.TargetVolume`."""

    def __init__(self, host: MemoryHost, name: str) -> None:
        self._host = host
        self._name = name

    @property
    def _volume(self) -> Volume:
        return self._host.volume(self._name)

    def inspect(self) -> Replica:
        """Finish what a crash left, then describe the replica."""
        volume = self._volume
        self._refuse_in_use()
        self._publish()
        info = None
        if volume.live is not None:
            size_bytes = volume.live.size_bytes
            info = VolumeInfo("memory", volume.identity, size_bytes, self._host.chunk_bytes)
        snapshots = tuple(snapshot for snapshot, _ in volume.goods.values())
        stage = volume.stage
        return Replica(
            exists=volume.live is not None,
            owned=bool(snapshots),
            info=info,
            lineage=snapshots[-1].lineage if snapshots else "",
            space=self._host.space(),
            snapshots=snapshots,
            staging=None if stage is None or stage.request.mode == "adopt" else stage.info,
            align_bytes=self._host.align_bytes,
            drifted=self._is_drifted(),
        )

    def begin(self, request: BeginRequest) -> MemoryStaging:
        """Return the staging volume for the request."""
        volume = self._volume
        self._refuse_in_use()
        self._check_request(request)
        stage = volume.stage
        if stage is not None and self._can_resume(stage, request):
            return MemoryStaging(self._host, volume, stage)
        if request.plan is not None:
            refuse_without_room(request.plan, request.new_chunks, self._host.space())
        content = PagedFile(request.size_bytes, self._host.chunk_bytes)
        if request.mode == "incremental":
            content = volume.goods[request.base_id][1].copy(request.size_bytes)
        elif request.mode == "adopt" and volume.live is not None:
            content = volume.live.copy(request.size_bytes)
        plan_digest = b"" if request.plan is None else request.plan.digest
        self._host.stage_count += 1
        text = f"{self._host.name}/{self._name}/{self._host.stage_count}"
        info = StagingInfo(
            identity=hashlib.sha256(text.encode()).hexdigest()[:32],
            lineage=request.lineage,
            base_id=request.base_id,
            snapshot_id=request.snapshot_id,
            plan_digest=plan_digest,
            cursor_bytes=0,
            chain=first_chain(request.snapshot_id, plan_digest),
        )
        volume.stage = Stage(info, request, content, volume.version)
        self._host.on_step("begun")
        return MemoryStaging(self._host, volume, volume.stage)

    def commit(self, staging: Staging, digest: bytes) -> Snapshot:
        """Turn staging into the newest good snapshot, and the replica into that."""
        if not isinstance(staging, MemoryStaging):
            msg = f"{type(staging).__name__} is no staging volume in memory"
            raise InternalError(msg)
        volume = self._volume
        request = staging.stage.request
        already = volume.goods.get(request.snapshot_id)
        if already is not None and already[0].digest == digest.hex():
            self._publish()
            return already[0]
        staging.sync()
        if volume.version != staging.stage.replaces:
            raise self._diverged("the replica was written to during the transfer")
        content = staging.stage.content
        content.frozen = True
        snapshot = Snapshot(
            id=request.snapshot_id,
            lineage=request.lineage,
            sequence=request.sequence,
            created_seconds=request.created_seconds,
            size_bytes=request.size_bytes,
            committed=True,
            name=f"{self._name}@{request.snapshot_id[:8]}",
            digest=digest.hex(),
            allocated_bytes=len(content.pages) * content.page_bytes,
        )
        volume.goods[snapshot.id] = (snapshot, content)  # the commit point
        volume.stage = None
        self._host.on_step("good")
        self._publish()
        return snapshot

    def abandon(self) -> None:
        """Remove the staging volume, if any."""
        self._volume.stage = None

    def prune(self, keep: int, protected_ids: Collection[str]) -> list[Snapshot]:
        """Remove the oldest good snapshots beyond ``keep``."""
        goods = [snapshot for snapshot, _ in self._volume.goods.values()]
        removed = [one for one in goods[: -max(keep, 1)] if one.id not in protected_ids]
        for snapshot in removed:
            del self._volume.goods[snapshot.id]
        return removed

    def take_costs(self) -> Costs:
        """Return nothing: no commands are run."""
        return Costs()

    def open_snapshot(self, snapshot_id: str) -> MemoryReader:
        """Open a good snapshot for reading."""
        found = self._volume.goods.get(snapshot_id)
        if found is None:
            raise self._error(f"there is no good snapshot {snapshot_id[:8]}", "list the snapshots")
        return MemoryReader(found[1])

    def _publish(self) -> None:
        """Make the replica show the newest good snapshot, unless it does already."""
        volume = self._volume
        newest = next(reversed(volume.goods.values()), None)
        if newest is None or (volume.published_id == newest[0].id and volume.live is not None):
            return
        volume.live = newest[1]
        volume.published_id = newest[0].id
        volume.published_version = volume.version
        self._host.on_step("published")

    def _is_drifted(self) -> bool:
        volume = self._volume
        return bool(volume.goods) and volume.version != volume.published_version

    def _refuse_in_use(self) -> None:
        if self._volume.in_use:
            raise self._error("it is in use", "unmount it")

    def _check_request(self, request: BeginRequest) -> None:
        volume = self._volume
        live = volume.live
        if live is not None and not volume.goods and request.mode != "adopt":
            raise self._error("it exists and was not made by blockrep", "push with --adopt")
        if live is None and request.mode == "adopt":
            raise self._error("there is no volume to adopt", "push without --adopt")
        if request.snapshot_id in volume.goods:
            what = f"the snapshot {request.snapshot_id[:8]} is here already"
            raise self._error(what, "push again")
        if request.mode == "incremental":
            if request.base_id not in volume.goods:
                raise self._diverged("the base snapshot is not here")
            if self._is_drifted():
                raise self._diverged("the replica was written to since its last snapshot")
        present = [one.size_bytes for _, one in volume.goods.values()][-1:]
        present += [] if live is None else [live.size_bytes]
        if max(present, default=0) > request.size_bytes and not request.allow_shrink:
            raise self._error("it is larger than the new content", "push again with --shrink")

    def _can_resume(self, stage: Stage, request: BeginRequest) -> bool:
        fields = ("lineage", "base_id", "snapshot_id", "sequence", "size_bytes", "mode")
        return (
            request.plan is not None
            and request.mode != "adopt"
            and stage.info.plan_digest == request.plan.digest
            and stage.replaces == self._volume.version
            and all(getattr(stage.request, one) == getattr(request, one) for one in fields)
        )

    def _error(self, what: str, next_step: str) -> VolumeError:
        return VolumeError(what, where=self._name, safe="nothing was changed", next_step=next_step)

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            what,
            where=self._name,
            safe="nothing was changed",
            next_step="push again with --adopt or --full",
        )


def refuse_without_room(plan: ExtentSummary, new_chunks: int, space: Space) -> None:
    """Raise NoSpaceError unless the plan fits."""
    need_bytes = max(plan.data_bytes, new_chunks * space.chunk_bytes)
    if need_bytes > space.free_bytes:
        raise NoSpaceError(
            f"{need_bytes} bytes are needed, {space.free_bytes} are free",
            safe="nothing was changed",
            next_step="make room, then push again",
        )
