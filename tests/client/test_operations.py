"""Operations: one at a time for a source and target, previews that change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.client import operations
from blockrep.errors import BusyError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.protocol.messages import Pruned
from blockrep.storage.locks import VolumeLock, lock_key
from support.hosts import MIB, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    return hosts


async def test_a_second_push_of_the_same_pair_is_told_who_is_at_it(hosts: Hosts) -> None:
    key = lock_key("source", VolumeName(path=str(hosts.source)), str(hosts.target))
    with (
        VolumeLock(hosts.folder / "client-run", key, "push of disk.img"),
        pytest.raises(BusyError, match=r"push of disk\.img"),
    ):
        await hosts.push()


async def test_an_unknown_source_is_told_before_anybody_is_called(hosts: Hosts) -> None:
    hosts.source.unlink()
    with pytest.raises(VolumeError):
        await hosts.push()
    assert hosts.events == []


async def test_the_replica_and_the_source_are_listed(hosts: Hosts) -> None:
    await hosts.push()
    async with hosts.context() as context:
        replica = await operations.list_remote(context, hosts.target, hosts.events.append)
        (local,) = await operations.list_source(context, hosts._source_name)
    (good,) = replica.snapshots
    assert (good.id, good.sequence) == (local.id, 1)


async def test_a_preview_is_since_the_newest_snapshot_of_the_target(hosts: Hosts) -> None:
    async with hosts.context() as context:
        base, extents = await operations.preview_delta(context, hosts._source_name, "")
        assert base is None
        assert sum(one.length_bytes for one in extents) == MIB
    await hosts.push()
    hosts.change(0, 10)
    async with hosts.context() as context:
        base, extents = await operations.preview_delta(
            context, hosts._source_name, str(hosts.target)
        )
        assert base is not None
        assert 0 < sum(one.length_bytes for one in extents) <= 65536
        base, _ = await operations.preview_delta(context, hosts._source_name, "tls://x:1/a/b")
        assert base is None


async def test_a_push_with_verify_compares_both_ends(hosts: Hosts) -> None:
    async with hosts.context() as context:
        _, verification = await operations.push(
            context,
            hosts._source_name,
            hosts.target,
            hosts.options(None),
            hosts.events.append,
            verify_after=True,
        )
    assert verification is not None
    assert (verification.compared_bytes, verification.different_bytes) == (MIB, 0)


async def test_a_replica_is_pruned_down_to_its_newest_snapshot(hosts: Hosts) -> None:
    for offset_bytes in (0, 4096, 8192):
        hosts.change(offset_bytes, 10)
        await hosts.push()
    async with hosts.context() as context:
        before = await operations.list_remote(context, hosts.target, hosts.events.append)
        pruned = await operations.prune_remote(context, hosts.target, 1, hosts.events.append)
        after = await operations.list_remote(context, hosts.target, hosts.events.append)
    assert pruned == Pruned(len(before.snapshots) - 1, 1)
    assert after.snapshots == before.snapshots[-1:]


async def test_whoever_is_done_says_so(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    """The server has nothing to complain about: its log tells of what went wrong only."""
    await hosts.dry_run()
    await hosts.push()
    await hosts.verify()
    async with hosts.context() as context:
        await operations.list_remote(context, hosts.target, hosts.events.append)
        await operations.prune_remote(context, hosts.target, 1, hosts.events.append)
    assert not [one for one in caplog.records if one.name == "blockrep.server"]


async def test_what_is_not_there_is_neither_listed_nor_previewed(hosts: Hosts) -> None:
    hosts.source.unlink()
    async with hosts.context() as context:
        with pytest.raises(VolumeError):
            await operations.list_source(context, hosts._source_name)
        with pytest.raises(VolumeError):
            await operations.preview_delta(context, hosts._source_name, "")


async def test_no_replica_to_prune_is_an_error_and_no_success(hosts: Hosts) -> None:
    async with hosts.context() as context:
        for _ in range(2):
            with pytest.raises(VolumeError, match="there is no replica of that name"):
                await operations.prune_remote(context, hosts.target, 1, hosts.events.append)
            hosts.replica.write_bytes(bytes(MIB))  # one that is not ours is none
