"""Whoever pulls decides what may happen to the replica, whatever the server sends."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from blockrep.client.pulling import PullOptions, pull
from blockrep.client.retrying import Remaining, RetryPolicy, retrying
from blockrep.errors import (
    BlockrepError,
    BusyError,
    ConnectionLostError,
    ProtocolError,
    RefusedError,
    UsageError,
)
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName
from blockrep.protocol.messages import (
    Bye,
    Compare,
    Message,
    Open,
    Pull,
    Release,
    StageRequest,
    Volume,
)
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.replication.pacing import RateLimiter
from blockrep.server.gate import TargetGate
from blockrep.storage.interface import SourceVolume, TargetVolume
from support.hosts import LIMITS, MIB, Allowed, Hosts
from support.sessions import BEGIN

OPTIONS = PullOptions(LIMITS)
STAGE = StageRequest("a" * 32, "b" * 32, 9, 1, 2 * MIB, allow_shrink=False)
ADOPT = Compare("", STAGE, 65536, bytes(8))
SHRINK = replace(BEGIN, mode="incremental", base_id="c" * 32, allow_shrink=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(2 * MIB)
    return hosts


async def pulled(hosts: Hosts, options: PullOptions = OPTIONS) -> None:
    async with hosts.context() as context:
        source = Target("tls", "origin", 8733, VolumeName(path=str(hosts.source)))
        target = VolumeName(path=str(hosts.replica))
        await pull(context, source, target, options, hosts.events.append)


async def test_a_pull_and_what_is_told_of_it(hosts: Hosts) -> None:
    await pulled(hosts)
    assert hosts.equal()
    hosts.change(MIB, 5000)
    await pulled(hosts, PullOptions(LIMITS, compress=True, bytes_per_second=1 << 30))
    assert hosts.equal()
    names = [type(event).__name__ for event in hosts.events]
    assert names.count("Committed") == 2
    assert {"Connected", "Decided", "Planned", "Progress"} <= set(names)


def decided(hosts: Hosts) -> list[tuple[str, str]]:
    """Return what was told of each transfer: its mode, and why."""
    return [(one.mode, one.reason) for one in hosts.events if isinstance(one, events.Decided)]


async def test_a_pull_tells_why_it_receives_what_it_does(hosts: Hosts) -> None:
    hosts.replica.write_bytes(bytes(MIB))
    await pulled(hosts, PullOptions(LIMITS, wish=Wish(adopt=True)))
    await pulled(hosts)
    hosts.replica.unlink()
    (hosts.replica.parent / ".blockrep").rename(hosts.folder / "away")
    await pulled(hosts)
    assert decided(hosts) == [
        ("adopt", "asked for by --adopt: compared, sending what differs"),
        ("incremental", "changes since snapshot #1"),
        ("full", "the replica does not exist yet"),
    ]


@pytest.mark.parametrize("what", ["foreign", "written to"])
async def test_whoever_pulls_is_not_told_to_push(hosts: Hosts, what: str) -> None:
    """That would overwrite the volume that he pulls from."""
    if what == "written to":
        await pulled(hosts)
        hosts.replica.chmod(0o600)
    hosts.replica.write_bytes(bytes(MIB))
    with pytest.raises(BlockrepError) as caught:
        await pulled(hosts)
    assert "pull again with --adopt" in str(caught.value)
    assert "push" not in str(caught.value)


async def test_a_replica_that_cannot_be_is_told_before_anybody_is_called(hosts: Hosts) -> None:
    hosts.replica.mkdir()
    with pytest.raises(BlockrepError):
        await pulled(hosts)
    assert hosts.events == []


async def test_nobody_else_works_on_the_replica_meanwhile(hosts: Hosts) -> None:
    # By a server, to which it has another name.
    (hosts.folder / "link").symlink_to("target")
    name = VolumeName(path=str(hosts.folder / "link" / hosts.replica.name))
    gate = TargetGate(
        "10.0.0.1:5",
        lambda *_: Allowed(name),
        lambda _name: cast("TargetVolume", object()),
        hosts.folder / "client-run",
        0,
        lambda *_: None,
        lambda *_: RateLimiter(0),
        lambda _name: cast("SourceVolume", object()),
    )
    async with gate.open("origin", "any", "push"):
        with pytest.raises(BusyError, match="push by origin"):
            await pulled(hosts)
    assert not hosts.replica.exists()


async def test_a_name_that_the_server_would_not_keep_is_told_before_anybody_is_called(
    hosts: Hosts,
) -> None:
    (hosts.folder / ("x" * 200)).mkdir()
    source = Target("tls", "origin", 8733, VolumeName(path=str(hosts.source)))
    target = VolumeName(path=f"{hosts.folder}/{'x' * 200}/{'y' * 60}")
    async with hosts.context() as context:
        with pytest.raises(UsageError, match="more than 255 bytes"):
            await pull(context, source, target, OPTIONS, hosts.events.append)
    assert hosts.events == []


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([Open("prune", "x", "")], "prune was not asked for"),
        ([Open("list", "x", "")], "list was not asked for"),
        ([Open("push", "x", ""), SHRINK], "smaller"),
        ([Open("push", "x", ""), BEGIN], "everything would be sent again"),
        ([Open("push", "x", ""), ADOPT], "may have been written there would be overwritten"),
    ],
    ids=["prune", "list", "shrink", "full", "adopt"],
)
async def test_a_server_gets_no_more_than_was_asked_for(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, messages: list[Message], words: str
) -> None:
    await pulled(hosts)
    hosts.replica.chmod(0o600)
    with hosts.replica.open("r+b") as file:
        file.write(b"drifted")
    before = hosts.replica.read_bytes()

    async def malicious(channel: Channel, request: Pull, *_: object) -> None:
        assert request.target == str(hosts.replica)
        for message in messages:
            await channel.send(message)
            if isinstance(message, Open):
                await channel.receive(Volume)
        await channel.receive_any()

    monkeypatch.setattr("blockrep.server.service.serve_pull", malicious)
    with pytest.raises(RefusedError, match=words):
        await pulled(hosts)
    assert hosts.replica.read_bytes() == before


@pytest.mark.parametrize(
    "messages",
    [[Bye()], [Open("push", "x", ""), Bye()], [Open("push", "x", ""), Release(), Bye()]],
    ids=["bye", "open", "release"],
)
async def test_a_server_that_sends_nothing_is_no_success(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, messages: list[Message]
) -> None:
    async def idle(channel: Channel, *_: object) -> None:
        for message in messages:
            await channel.send(message)
            if isinstance(message, Open):
                await channel.receive(Volume)

    monkeypatch.setattr("blockrep.server.service.serve_pull", idle)
    with pytest.raises(ProtocolError, match="had sent nothing; the replica is as it was") as caught:
        await pulled(hosts)
    assert caught.value.where == f"tls://origin:8733/{hosts.source}"
    assert caught.value.next_step
    assert not hosts.replica.exists()


async def test_a_full_pull_goes_on_where_it_was_cut(hosts: Hosts) -> None:
    await pulled(hosts)
    hosts.events.clear()
    remaining = Remaining(Wish(full=True))

    async def attempt(sink: events.EventSink) -> None:
        options = PullOptions(LIMITS, wish=remaining.wish, bytes_per_second=4 * MIB)
        async with hosts.context() as context:
            source = Target("tls", "origin", 8733, VolumeName(path=str(hosts.source)))
            target = VolumeName(path=str(hosts.replica))
            await pull(context, source, target, options, remaining.watched(sink))

    cuts = [events.Progress, events.Committed]

    def cut(event: events.Event) -> None:
        hosts.events.append(event)
        durable = not isinstance(event, events.Progress) or event.durable_bytes
        if cuts and isinstance(event, cuts[0]) and durable:
            del cuts[0]
            assert hosts._client_end is not None
            hosts._client_end.cut()

    policy = RetryPolicy(60, 0.01, random.Random(1))
    await retrying(attempt, policy, cut)
    assert not cuts
    # Cut in the first, whose answer is lost in the second.
    assert decided(hosts) == [
        ("full", "asked for by --full"),
        ("full", "resuming snapshot #2"),
        ("incremental", "changes since snapshot #2"),
    ]
    planned = [one.data_bytes for one in hosts.events if isinstance(one, events.Planned)]
    assert planned == [2 * MIB, 2 * MIB, 0]
    resumed, _ = [one for one in hosts.events if isinstance(one, events.Committed)]
    assert resumed.wire_bytes < 2 * MIB
    assert hosts.equal()


async def test_a_plain_pull_after_a_full_one_that_was_cut_starts_from_the_base(
    hosts: Hosts,
) -> None:
    await pulled(hosts)
    hosts.change(0, 5000)
    options = PullOptions(LIMITS, wish=Wish(full=True), bytes_per_second=4 * MIB)
    async with hosts.context() as context:
        source = Target("tls", "origin", 8733, VolumeName(path=str(hosts.source)))

        def cut(event: events.Event) -> None:
            if isinstance(event, events.Progress) and event.durable_bytes:
                assert hosts._client_end is not None
                hosts._client_end.cut()

        with pytest.raises(ConnectionLostError):
            await pull(context, source, VolumeName(path=str(hosts.replica)), options, cut)
    hosts.events.clear()
    await pulled(hosts)
    assert decided(hosts) == [("incremental", "changes since snapshot #1")]
    assert hosts.equal()
