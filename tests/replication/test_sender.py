"""A push ends as a new good snapshot that equals the source, or changes nothing (I2, I5, I10)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.errors import (
    ConnectionLostError,
    DivergedError,
    ProtocolError,
    StorageError,
    VolumeError,
)
from blockrep.model.lineage import Mode, Wish
from blockrep.model.snapshots import Replica, Snapshot, VolumeInfo
from blockrep.protocol.limits import MAX_U64
from blockrep.protocol.messages import Commit, Message, Ready, Volume
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.replication.compression import ZstdCompressor
from blockrep.replication.describe import replica_from
from blockrep.replication.sending import Compression
from blockrep.storage.image.source import ImageSource
from blockrep.transport.memory import MemoryTransport
from support.hosts import KIB, MIB, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(4 * MIB)
    return hosts


def cut_when_durable(durable_bytes: int) -> object:
    def on_event(event: events.Event, cable: MemoryTransport) -> None:
        if isinstance(event, events.Progress) and event.durable_bytes >= durable_bytes:
            cable.cut()

    return on_event


def kinds(hosts: Hosts) -> list[str]:
    return [type(event).__name__ for event in hosts.events]


async def test_a_first_push_is_full_the_next_sends_what_changed(hosts: Hosts) -> None:
    (first,) = await hosts.push()
    assert (first.mode, first.plan_bytes) == (Mode.FULL, 4 * MIB)
    assert hosts.equal()
    hosts.change(2 * MIB, 10)
    (second,) = await hosts.push()
    assert second.mode is Mode.INCREMENTAL
    assert second.plan_bytes <= 128 * KIB
    assert hosts.equal()
    (third,) = await hosts.push()
    assert (third.plan_bytes, third.wire_bytes) == (0, 0)


async def test_only_the_newest_base_stays_at_the_source(hosts: Hosts) -> None:
    for _ in range(3):
        await hosts.push()
        hosts.change(0, 10)
    async with hosts.context() as context:
        snapshots = context.open_source(hosts._source_name).snapshots()
    assert [(one.sequence, one.committed) for one in snapshots] == [(3, True)]


async def test_the_base_goes_only_after_the_commit(hosts: Hosts) -> None:
    await hosts.push()
    hosts.events.clear()
    hosts.change(0, 10)
    await hosts.push()
    order = [
        name for name in kinds(hosts) if name in {"SnapshotTaken", "Committed", "SnapshotRemoved"}
    ]
    assert order == ["SnapshotTaken", "Committed", "SnapshotRemoved"]


async def test_a_cut_push_resumes_and_sends_nothing_durable_again(hosts: Hosts) -> None:
    hosts.on_event = cut_when_durable(MIB)  # type: ignore[assignment]
    # Slow enough for an acknowledgement to arrive before everything is sent.
    with pytest.raises(ConnectionLostError):
        await hosts.push(bytes_per_second=8 * MIB)
    hosts.on_event = None
    durable_bytes = max(
        one.durable_bytes for one in hosts.events if isinstance(one, events.Progress)
    )
    resumed, fresh = await hosts.push()
    assert (resumed.mode, fresh.mode) == (Mode.RESUME, Mode.INCREMENTAL)
    (told,) = [one for one in hosts.events if isinstance(one, events.Resumed)]
    assert told.done_bytes >= durable_bytes >= MIB
    assert resumed.wire_bytes <= (4 * MIB - told.done_bytes) * 1.01
    assert hosts.equal()


async def test_a_cut_full_push_over_good_snapshots_resumes_too(hosts: Hosts) -> None:
    await hosts.push()
    hosts.change(0, 2 * MIB)
    hosts.events.clear()
    hosts.on_event = cut_when_durable(MIB)  # type: ignore[assignment]
    with pytest.raises(ConnectionLostError):
        await hosts.push(Wish(full=True), bytes_per_second=8 * MIB)
    hosts.on_event = None
    resumed, fresh = await hosts.push(Wish(full=True))
    assert (resumed.mode, fresh.mode) == (Mode.RESUME, Mode.INCREMENTAL)
    (told,) = [one for one in hosts.events if isinstance(one, events.Resumed)]
    assert told.done_bytes >= MIB
    assert resumed.wire_bytes <= (4 * MIB - told.done_bytes) * 1.01
    assert hosts.equal()


async def test_a_lost_committed_is_made_up_for_by_the_next_push(hosts: Hosts) -> None:
    await hosts.push()
    hosts.change(0, 10)

    def cut_after_plan(event: events.Event, cable: MemoryTransport) -> None:
        # All frames of this small delta are under way; COMMIT gets through, COMMITTED does not.
        if isinstance(event, events.Progress) and event.done_bytes == event.total_bytes:
            cable._incoming.break_off()

    hosts.on_event = cut_after_plan
    with pytest.raises(ConnectionLostError):
        await hosts.push()
    hosts.on_event = None
    await hosts.push()
    assert hosts.equal()


async def test_a_snapshot_of_a_push_that_was_refused_is_not_left_behind(hosts: Hosts) -> None:
    hosts.replica.write_bytes(b"somebody else's")
    with pytest.raises(VolumeError, match="--adopt"):
        await hosts.push()
    async with hosts.context() as context:
        assert context.open_source(hosts._source_name).snapshots() == []
    assert hosts.replica.read_bytes() == b"somebody else's"


async def test_adoption_sends_only_what_differs(hosts: Hosts) -> None:
    content = bytearray(hosts.source.read_bytes())
    content[MIB] ^= 1
    hosts.replica.write_bytes(content)
    (transfer,) = await hosts.push(Wish(adopt=True))
    assert transfer.mode is Mode.ADOPT
    assert transfer.plan_bytes == 64 * KIB
    assert hosts.equal()
    hosts.change(0, 10)
    (transfer,) = await hosts.push()
    assert transfer.mode is Mode.INCREMENTAL


async def test_a_replica_that_was_written_to_is_not_overwritten(hosts: Hosts) -> None:
    await hosts.push()
    hosts.replica.chmod(0o600)
    with hosts.replica.open("r+b") as file:
        file.write(b"!")
    before = hosts.replica.read_bytes()
    with pytest.raises(DivergedError, match="written to"):
        await hosts.push()
    assert hosts.replica.read_bytes() == before
    await hosts.push(Wish(adopt=True))
    assert hosts.equal()


async def test_full_starts_over(hosts: Hosts) -> None:
    await hosts.push()
    (transfer,) = await hosts.push(Wish(full=True))
    assert (transfer.mode, transfer.plan_bytes) == (Mode.FULL, 4 * MIB)
    assert hosts.equal()


async def test_growing_is_followed_shrinking_needs_consent(hosts: Hosts) -> None:
    await hosts.push()
    with hosts.source.open("r+b") as file:
        file.truncate(5 * MIB)
    await hosts.push()
    assert hosts.equal()
    with hosts.source.open("r+b") as file:
        file.truncate(3 * MIB)
    with pytest.raises(VolumeError, match="--shrink"):
        await hosts.push()
    await hosts.push(Wish(shrink=True))
    assert hosts.equal()


async def test_a_source_that_has_grown_again_is_pushed_after_a_shrink_that_was_cut(
    hosts: Hosts,
) -> None:
    await hosts.push()
    with hosts.source.open("r+b") as file:
        file.truncate(3 * MIB)
    hosts.change(0, 2 * MIB)
    hosts.on_event = cut_when_durable(MIB)  # type: ignore[assignment]
    with pytest.raises(ConnectionLostError):
        await hosts.push(Wish(shrink=True), bytes_per_second=8 * MIB)
    hosts.on_event = None
    with hosts.source.open("r+b") as file:
        file.truncate(5 * MIB)
    (transfer,) = await hosts.push()
    assert transfer.mode is Mode.INCREMENTAL
    assert hosts.equal()


async def test_compressed_content_arrives_unchanged(hosts: Hosts) -> None:
    hosts.source.write_bytes(b"all work and no play makes jack a dull boy\n" * 50_000)
    (transfer,) = await hosts.push(compression=Compression(ZstdCompressor, always=True))
    assert transfer.wire_bytes < transfer.plan_bytes // 10
    assert hosts.equal()


async def test_a_dry_run_changes_nothing(hosts: Hosts) -> None:
    plan = await hosts.dry_run()
    assert (plan.mode, plan.data_bytes, plan.creates_replica) == (Mode.FULL, 4 * MIB, True)
    assert [one.name for one in (hosts.folder / "target").iterdir() if one.is_file()] == []
    async with hosts.context() as context:
        assert context.open_source(hosts._source_name).snapshots() == []
    await hosts.push()
    hosts.change(0, 10)
    plan = await hosts.dry_run()
    assert plan.mode is Mode.INCREMENTAL
    assert plan.data_bytes is not None
    assert 0 < plan.data_bytes <= 64 * KIB
    assert not hosts.equal()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_pages_are_compared_only_where_the_base_has_its_content(hosts: Hosts) -> None:
    """An image without clones has digests: looking for more leaves no file open (I9)."""
    await hosts.push()
    before = open_files()
    for number in range(3):
        hosts.change(number * MIB, 10)
        await hosts.push(page_delta=True)
    assert hosts.equal()
    assert open_files() <= before


def forget_commit_and_damage_table(hosts: Hosts) -> None:
    """As after a lost COMMITTED, on a disk that lies."""
    (record,) = hosts.source.parent.rglob("source/*.json")
    record.write_text(record.read_text().replace('"committed": true', '"committed": false'))
    (table,) = hosts.source.parent.rglob("source/*.table")
    table.write_bytes(table.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("wish", [Wish(adopt=True), Wish(full=True)], ids=["adopt", "full"])
async def test_what_is_no_base_any_more_is_in_nobodys_way(hosts: Hosts, wish: Wish) -> None:
    await hosts.push()
    forget_commit_and_damage_table(hosts)
    with pytest.raises(VolumeError, match=r"digest table.*--adopt"):
        await hosts.push()
    await hosts.push(wish)
    assert hosts.equal()
    hosts.change(0, 10)
    await hosts.push()
    assert hosts.equal()


async def test_a_damaged_table_of_what_has_changed_since_is_a_snapshot_lost(hosts: Hosts) -> None:
    await hosts.push()
    forget_commit_and_damage_table(hosts)
    hosts.change(0, 10)
    with pytest.raises(DivergedError, match="--adopt"):
        await hosts.push()
    await hosts.push(Wish(adopt=True))
    assert hosts.equal()


async def test_a_file_that_grows_meanwhile_is_looked_at_up_to_where_it_ended(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = ImageSource.describe

    def describe_and_grow(source: ImageSource) -> VolumeInfo:
        info = describe(source)
        with hosts.source.open("ab") as file:
            file.write(b"x" * MIB)
        return info

    monkeypatch.setattr(ImageSource, "describe", describe_and_grow)
    assert (await hosts.dry_run()).data_bytes == 4 * MIB


async def test_a_receiver_that_leaves_no_number_for_a_snapshot_is_told_as_such(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosts.push()

    def replica_at_the_end(volume: Volume) -> Replica:
        replica = replica_from(volume)
        last = replace(replica.snapshots[-1], sequence=MAX_U64)
        return replace(replica, snapshots=(last,))

    monkeypatch.setattr("blockrep.replication.sender.replica_from", replica_at_the_end)
    for attempt in (hosts.push(), hosts.push(Wish(full=True)), hosts.dry_run()):
        with pytest.raises(ProtocolError, match="no number follows it; nothing was changed"):
            await attempt
    async with hosts.context() as context:
        assert len(context.open_source(hosts._source_name).snapshots()) == 1


@pytest.mark.parametrize("wish", [Wish(), Wish(full=True), Wish(adopt=True)], ids=str)
async def test_nothing_is_left_out_that_was_never_sent(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, wish: Wish
) -> None:
    """A cursor is where an unfinished transfer goes on, and VOLUME announced none."""
    await hosts.push()
    hosts.change(0, 2 * MIB)
    send = Channel.send

    async def skipping(channel: Channel, message: Message) -> None:
        if isinstance(message, Ready):
            message = replace(message, cursor_bytes=MIB, chain=b"c" * 32)
        await send(channel, message)

    monkeypatch.setattr(Channel, "send", skipping)
    with pytest.raises(ProtocolError, match="never begun"):
        await hosts.push(wish)


async def test_a_snapshot_that_cannot_be_removed_does_not_gather_others(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosts.push()
    async with hosts.context() as context:
        (stuck,) = context.open_source(hosts._source_name).snapshots()
    remove = ImageSource.remove_snapshot

    def remove_others(source: ImageSource, snapshot: Snapshot) -> None:
        if snapshot.id == stuck.id:
            raise StorageError("it cannot be removed")
        remove(source, snapshot)

    monkeypatch.setattr(ImageSource, "remove_snapshot", remove_others)
    for _ in range(3):
        with pytest.raises(StorageError, match="cannot be removed"):
            await hosts.push()
    async with hosts.context() as context:
        left = context.open_source(hosts._source_name).snapshots()
    assert [one.sequence for one in left] == [1, 4]
    # What a crash left behind goes as well, before the transfer.
    for kept in hosts.source.parent.rglob("source/*.json"):
        kept.write_text(kept.read_text().replace('"committed": true', '"committed": false'))
    shutil.rmtree(hosts.replica.parent / ".blockrep")
    hosts.replica.unlink()
    with pytest.raises(StorageError, match="cannot be removed"):
        await hosts.push()
    async with hosts.context() as context:
        assert context.open_source(hosts._source_name).snapshots() == [
            replace(stuck, committed=False)
        ]


async def test_a_commit_with_another_digest_commits_nothing_and_the_next_push_resumes(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Channel.send

    async def damaging(channel: Channel, message: Message) -> None:
        if isinstance(message, Commit):
            message = replace(message, digest=bytes(32))
        await send(channel, message)

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "send", damaging)
        with pytest.raises(ProtocolError, match=r"nothing was committed.*push again: it resumes"):
            await hosts.push()
    assert not hosts.replica.exists()
    resumed, _ = await hosts.push()
    assert (resumed.mode, resumed.wire_bytes) == (Mode.RESUME, 0)
    assert hosts.equal()
