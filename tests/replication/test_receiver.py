"""The receiver does what it was allowed to, in the order of the protocol, and records it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockrep.client.connect import established
from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import ProtocolError, RefusedError
from blockrep.model.extents import ExtentSummary
from blockrep.model.lineage import Wish
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.protocol.limits import MAX_U64
from blockrep.protocol.messages import (
    Begin,
    Bye,
    Compare,
    Compared,
    Digests,
    Open,
    Prune,
    Pruned,
    Ready,
    Release,
    StageRequest,
    Volume,
)
from blockrep.replication.channel import Channel
from blockrep.storage.image.target import ImageTarget
from blockrep.storage.interface import BeginRequest, Staging
from blockrep.storage.memory import MemoryTarget
from support.hosts import MIB, Allowed, Hosts
from support.memory_server import MemoryServer
from support.virtual_time import run_virtual


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    return hosts


def allowing(hosts: Hosts, **rules: int) -> None:
    def allowed(_identity: str, volume: str, _operation: str) -> Allowed:
        return replace(Allowed(VolumeName(path=volume)), **rules)  # type: ignore[arg-type]

    hosts.allowed = allowed


async def test_a_client_that_may_not_create_creates_nothing(hosts: Hosts) -> None:
    allowing(hosts, create=False)
    with pytest.raises(RefusedError, match="may not create"):
        await hosts.push()
    assert not hosts.replica.exists()
    allowing(hosts, create=True)
    await hosts.push()
    allowing(hosts, create=False)
    hosts.change(0, 10)
    await hosts.push()
    assert hosts.equal()


async def test_a_client_that_may_not_adopt_leaves_the_volume_as_it_was(hosts: Hosts) -> None:
    hosts.replica.write_bytes(b"mine" * 1000)
    allowing(hosts, adopt=False)
    with pytest.raises(RefusedError, match="may not adopt"):
        await hosts.push(Wish(adopt=True))
    assert hosts.replica.read_bytes() == b"mine" * 1000


async def test_a_forced_push_is_on_record(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    await hosts.push()
    await hosts.push(Wish(full=True))
    recorded = [record.getMessage() for record in caplog.records if record.name == "blockrep.audit"]
    assert sum('"event": "committed"' in line for line in recorded) == 2
    assert sum('"event": "forced"' in line for line in recorded) == 1


def recorded(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(one.getMessage()) for one in caplog.records if "audit" in one.name]
    return [line for line in lines if line["event"] == event]


async def test_what_is_larger_than_the_quota_is_refused_before_anything_is_staged(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    allowing(hosts, quota_bytes=MIB - 1)
    with pytest.raises(RefusedError, match=f"has {MIB} bytes, more than the quota of {MIB - 1}"):
        await hosts.push()
    assert list((hosts.folder / "target").iterdir()) == []
    hosts.replica.write_bytes(b"mine")
    with pytest.raises(RefusedError, match="quota"):
        await hosts.push(Wish(adopt=True))
    assert [path.name for path in (hosts.folder / "target").iterdir()] == [hosts.replica.name]
    hosts.replica.unlink()
    refused = recorded(caplog, "refused")
    assert [line["volume"] for line in refused] == [str(hosts.replica)] * 2
    allowing(hosts, quota_bytes=MIB)
    await hosts.push()
    assert hosts.equal()


async def test_every_line_of_a_transfer_names_volume_and_id(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    hosts.replica.write_bytes(bytes(2 * MIB))
    await hosts.push(Wish(adopt=True, shrink=True))
    hosts.change(0, 10)
    await hosts.push()
    (forced,) = recorded(caplog, "forced")
    assert (forced["mode"], forced["shrinks"], forced["newest"]) == ("adopt", True, "")
    first, second = recorded(caplog, "committed")
    assert forced["id"] == first["id"] != second["id"]
    for line in (forced, first, second):
        assert (line["volume"], line["identity"]) == (str(hosts.replica), "client")


RULE = TargetRule("vg/a", "vg/a", frozenset(OPERATIONS), keep=9, keep_min=2)
LAVISH = TargetRule("vg/a", "vg/a", frozenset(OPERATIONS))


async def five_pushes(server: MemoryServer) -> None:
    for number in range(5):
        server.write(0, bytes([number + 1]) * 4096)
        await server.run("alpha", "push", "vg/a")


def test_a_prune_drops_the_oldest_down_to_what_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (RULE,)}, None))
        await five_pushes(server)
        before = server.goods("vg/a")
        assert await server.run("alpha", "prune", "vg/a", keep=3) == Pruned(2, 3)
        assert server.goods("vg/a") == before[2:]
        assert await server.run("alpha", "prune", "vg/a", keep=3) == Pruned(0, 3)
        assert await server.run("alpha", "prune", "vg/a", keep=MAX_U64) == Pruned(0, 3)
        deleted = recorded(caplog, "deleted")
        assert [line["id"] for line in deleted] == [one.id for one in before[:2]]
        assert {line["operation"] for line in deleted} == {"prune"}
        await server.settle()

    run_virtual(scenario())


def test_a_prune_below_what_must_stay_drops_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (RULE,)}, None))
        await five_pushes(server)
        with pytest.raises(RefusedError, match="at least 2 good snapshots must stay"):
            await server.run("alpha", "prune", "vg/a", keep=1)
        assert len(server.goods("vg/a")) == 5
        await server.settle()

    run_virtual(scenario())


def test_the_newest_stays_whatever_is_asked_and_a_volume_without_any_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (LAVISH,)}, None))
        async with server.session("alpha") as channel:
            await channel.send(Open("prune", "vg/a", ""))
            await channel.receive(Volume)
            await channel.send(Prune(1))
            assert await channel.receive(Pruned) == Pruned(0, 0)
        await server.settle()
        await five_pushes(server)
        assert [line["operation"] for line in recorded(caplog, "deleted")] == ["push"] * 2
        newest = server.goods("vg/a")[-1]
        assert await server.run("alpha", "prune", "vg/a", keep=1) == Pruned(2, 1)
        assert server.goods("vg/a") == [newest]
        server.write(8192, b"more")
        await server.run("alpha", "push", "vg/a")  # the base is still there
        await server.settle()

    run_virtual(scenario())


def test_what_an_unfinished_transfer_starts_from_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (RULE,)}, None))
        await five_pushes(server)
        target = MemoryTarget(server.replica, "vg/a")
        base = server.goods("vg/a")[1]
        plan = ExtentSummary(1, 4096, 0, bytes(32))
        request = BeginRequest(
            base.lineage, "9" * 32, 6, 0, base.id, "incremental", base.size_bytes, plan, 1
        )
        target.begin(request).close()
        assert await server.run("alpha", "prune", "vg/a", keep=2) == Pruned(2, 3)
        assert [one.sequence for one in server.goods("vg/a")] == [2, 4, 5]
        await server.settle()

    run_virtual(scenario())


def test_a_prune_may_be_repeated_in_one_session_and_ends_by_release(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (LAVISH,)}, None))
        for number in range(3):
            server.write(0, bytes([number + 1]) * 4096)
            await server.run("alpha", "push", "vg/a")
        async with server.session("alpha") as channel:
            await channel.send(Open("prune", "vg/a", ""))
            await channel.receive(Volume)
            for keep, answer in ((2, Pruned(1, 2)), (1, Pruned(1, 1)), (1, Pruned(0, 1))):
                await channel.send(Prune(keep))
                assert await channel.receive(Pruned) == answer
            await channel.send(Release())
            await channel.send(Open("list", "vg/a", ""))
            assert len((await channel.receive(Volume)).snapshots) == 1
            await channel.send(Bye())
        await server.settle()

    run_virtual(scenario())


async def test_a_commit_is_on_record_even_if_its_session_is_ended_meanwhile(
    hosts: Hosts, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    commit = ImageTarget.commit
    loop = asyncio.get_running_loop()

    def ended_meanwhile(target: ImageTarget, staging: Staging, digest: bytes) -> Snapshot:
        assert hosts.service is not None
        end = functools.partial(hosts.service.change_rules, lambda *_: None, lambda _: False)
        asyncio.run_coroutine_threadsafe(_call(end), loop).result(30)
        return commit(target, staging, digest)

    monkeypatch.setattr(ImageTarget, "commit", ended_meanwhile)
    with pytest.raises(RefusedError, match="not allow it any more"):
        await hosts.push()
    assert len(recorded(caplog, "committed")) == 1
    assert hosts.equal()


async def _call(function: Callable[[], None]) -> None:
    function()


async def test_one_adoption_is_staged_for_each_open(hosts: Hosts) -> None:
    """Each holds files, and everything else that a staging volume takes."""
    hosts.replica.write_bytes(b"mine" * 1000)
    stage = StageRequest("a" * 32, "b" * 32, 1, 0, MIB, allow_shrink=False)
    compare = Compare("", stage, 4096, bytes(8))

    async with opened_to_push(hosts) as channel:
        assert await compared(channel, compare) == MIB
        with pytest.raises(ProtocolError, match="a second COMPARE with stage"):
            await compared(channel, compare)
    assert hosts.replica.read_bytes() == b"mine" * 1000


@contextlib.asynccontextmanager
async def opened_to_push(hosts: Hosts) -> AsyncIterator[Channel]:
    async with hosts.context() as context:
        transport = await context.connect(hosts.target)
        async with established(transport, (), hosts.events.append, 10) as channel:
            await channel.send(Open("push", str(hosts.replica), "x"))
            await channel.receive(Volume)
            yield channel


async def compared(channel: Channel, compare: Compare) -> int:
    await channel.send(compare)
    while not isinstance(message := await channel.receive_any(), Compared):
        assert isinstance(message, Digests)
        if len(message.payload):
            channel.release(message.payload)
    return message.size_bytes


STAGE = StageRequest("a" * 32, "b" * 32, 1, 0, MIB, allow_shrink=False)
ADOPTION = Begin(
    "a" * 32, "b" * 32, 1, 0, "", "adopt", MIB, 0, 0, 0, bytes(32), 0, allow_shrink=False
)


@pytest.mark.parametrize(
    "differs",
    [
        {"lineage": "c" * 32},
        {"snapshot_id": "c" * 32},
        {"sequence": 2},
        {"created_seconds": 1},
        {"size_bytes": MIB - 4096},
        {"size_bytes": MIB + 4096},
        {"allow_shrink": True},
    ],
    ids=lambda one: " ".join(map(str, one.items())),
)
async def test_what_was_staged_is_what_is_adopted(
    hosts: Hosts, differs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    hosts.replica.write_bytes(b"mine" * 1000)
    async with opened_to_push(hosts) as channel:
        await compared(channel, Compare("", STAGE, 4096, bytes(8)))
        await channel.send(replace(ADOPTION, **differs))
        with pytest.raises(ProtocolError, match="of another snapshot than that of COMPARE"):
            await channel.receive(Ready)
    assert recorded(caplog, "forced") == []
    assert hosts.replica.read_bytes() == b"mine" * 1000


async def test_the_numbers_of_snapshots_are_not_used_up(hosts: Hosts) -> None:
    """After the last one nothing could be pushed any more."""
    full = replace(ADOPTION, mode="full")
    for after, newest in ((1 << 32, 0), ((1 << 32) + 1, 1)):
        stage = replace(STAGE, sequence=after + 1)
        for message in (
            replace(full, sequence=MAX_U64),
            replace(full, sequence=after + 1),
            Compare("", stage, 4096, bytes(8)),
        ):
            async with opened_to_push(hosts) as channel:
                await channel.send(message)
                with pytest.raises(ProtocolError, match=f"the replica's newest is #{newest}"):
                    await channel.receive_any()
        async with opened_to_push(hosts) as channel:
            await channel.send(replace(full, sequence=after))
            await channel.receive(Ready)
        await hosts.push(Wish(full=True))


async def test_an_adoption_without_compare_is_refused(hosts: Hosts) -> None:
    hosts.replica.write_bytes(b"mine" * 1000)
    async with opened_to_push(hosts) as channel:
        await channel.send(ADOPTION)
        with pytest.raises(ProtocolError, match="without COMPARE"):
            await channel.receive(Ready)
