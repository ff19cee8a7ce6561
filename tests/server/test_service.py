"""A server outlives its sessions: refusals and defects end one of them, never the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import BusyError, ConnectionLostError, RefusedError
from blockrep.model.lineage import Mode
from blockrep.model.names import VolumeName
from blockrep.protocol.messages import Bye, Hello, Open, Release, Volume, Welcome
from blockrep.protocol.transitions import Side
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.gate import Permission
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.interface import SourceVolume, TargetVolume
from blockrep.transport.interface import PeerInfo
from blockrep.transport.memory import MemoryTransport, memory_pair
from support.hosts import MIB, Allowed, Hosts
from support.memory_server import MemoryServer
from support.virtual_time import InlineBlocking, run_virtual

LIMITS = ReceiverLimits(65536, 4 * 65536, 5, 30)

_OPENERS = (
    lambda _name: cast("TargetVolume", None),
    lambda _name: cast("SourceVolume", None),
)


def service(tmp_path: Path, max_sessions: int = 2) -> Service:
    def authorize(_identity: str, _volume: str, _operation: str) -> Permission | None:
        raise ZeroDivisionError

    settings = ServiceSettings(LIMITS, max_sessions, max_sessions, 600, 1 << 23, 10, 1, tmp_path)
    return Service(
        settings,
        authorize,
        lambda _name: cast("TargetVolume", None),
        lambda _name: cast("SourceVolume", None),
        InlineBlocking(),
    )


def test_a_defect_ends_one_session_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        serving_service = service(tmp_path)
        left, right = memory_pair()
        serving = asyncio.create_task(serving_service.serve(right))
        async with Channel(left, Side.CLIENT) as client:
            await client.send(Hello((1, 1), (), "t"))
            await client.receive(Welcome)
            await client.send(Open("push", "vg/lv", ""))
            await serving
        assert client.session.error is not None
        assert client.session.error.code == "internal"

    caplog.set_level(logging.ERROR)
    run_virtual(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_the_number_of_sessions_is_limited(tmp_path: Path) -> None:
    async def scenario() -> None:
        serving_service = service(tmp_path, max_sessions=1)
        first_left, first_right = memory_pair()
        second_left, second_right = memory_pair()
        first = asyncio.create_task(serving_service.serve(first_right))
        async with Channel(first_left, Side.CLIENT) as client:
            await client.send(Hello((1, 1), (), "t"))
            await client.receive(Welcome)
            second = asyncio.create_task(serving_service.serve(second_right))
            async with Channel(second_left, Side.CLIENT) as refused:
                with pytest.raises(BusyError, match="limit of 1 session"):
                    await refused.receive(Welcome)
            await second
            await client.send(Bye())
            await first

    run_virtual(scenario())


def test_one_client_leaves_room_for_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(server.session("alpha")) for _ in range(4)]
            for _ in range(10):
                with pytest.raises(BusyError, match="this client has its limit of 4 sessions"):
                    async with server.session("alpha"):
                        pass
            async with server.session("beta") as other:
                await other.send(Bye())
            await sessions.pop().send(Bye())
            await asyncio.sleep(1)
            sessions.append(await stack.enter_async_context(server.session("alpha")))
            for one in sessions:
                await one.send(Bye())
        await server.settle()

    run_virtual(scenario())


def test_those_who_are_being_refused_take_no_session_and_are_not_many(tmp_path: Path) -> None:
    """A client that reads nothing is told for seconds: it must not count as served meanwhile."""

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(server.session("alpha")) for _ in range(4)]
            silent = [server.dial("alpha") for _ in range(200)]
            await asyncio.sleep(0.1)
            assert len(server.service._sessions) <= 4 + 64 + 1
            async with server.session("beta") as other:
                await other.send(Bye())
            for one in sessions:
                await one.send(Bye())
        await server.settle()
        del silent

    run_virtual(scenario())


def test_a_session_that_only_says_that_it_lives_is_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blockrep.audit")

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        loop = asyncio.get_running_loop()
        async with server.session("alpha") as idle, server.session("beta") as working:
            began = loop.time()
            await working.send(Open("push", "vg/b", ""))
            await working.receive(Volume)
            await asyncio.sleep(500)
            with pytest.raises(RefusedError, match="nothing open for 600 seconds"):
                await idle.receive_any()
            assert 599.9 < loop.time() - began < 610
            await asyncio.sleep(5000)
            await working.send(Release())
            await asyncio.sleep(500)
            await working.send(Open("list", "vg/b", ""))
            await working.receive(Volume)
            await working.send(Release())
            await asyncio.sleep(500)
            await working.send(Bye())
        await server.settle()

    run_virtual(scenario())
    assert [one.getMessage() for one in caplog.records if '"ended"' in one.getMessage()]


def test_an_old_client_is_told_which_version_is_spoken(tmp_path: Path) -> None:
    async def scenario() -> str:
        serving_service = service(tmp_path)
        left, right = memory_pair()
        serving = asyncio.create_task(serving_service.serve(right))
        async with Channel(left, Side.CLIENT) as client:
            await client.send(Hello((7, 9), (), "t"))
            await serving
        assert client.session.error is not None
        return client.session.error.what

    assert "speaks protocol 1, the client 7 to 9" in run_virtual(scenario())


RULES = {
    "alpha": (TargetRule("vg/a", "vg/a", frozenset(OPERATIONS)),),
    "beta": (TargetRule("vg/b", "vg/b", frozenset(OPERATIONS)),),
}
LISTING = (TargetRule("vg/a", "vg/a", frozenset({"list"})),)


@pytest.mark.parametrize(
    ("rules", "ends"),
    [
        ({"beta": RULES["beta"]}, True),
        ({**RULES, "alpha": ()}, True),
        ({**RULES, "alpha": LISTING}, True),
        ({**RULES, "alpha": (TargetRule("vg/a", "vg/other", frozenset(OPERATIONS)),)}, True),
        ({**RULES, "alpha": (*LISTING, *RULES["alpha"])}, False),
        ({**RULES, "alpha": (TargetRule("vg/*", "vg/*", keep=9, create=False),)}, False),
        (None, False),
    ],
    ids=[
        "no identity",
        "no target",
        "no right",
        "other volume",
        "same",
        "other limits",
        "no rules",
    ],
)
def test_other_rules_end_the_sessions_that_they_do_not_allow_and_no_other(
    rules: Mapping[str, tuple[TargetRule, ...]] | None, *, ends: bool, tmp_path: Path
) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with server.session("alpha") as alpha, server.session("beta") as beta:
            for channel, volume in ((alpha, "vg/a"), (beta, "vg/b")):
                await channel.send(Open("push", volume, ""))
                await channel.receive(Volume)
            server.change_rules(AccessPolicy(rules, None))
            if ends:
                with pytest.raises(RefusedError, match="not allow it any more"):
                    await alpha.receive_any()
            else:
                await alpha.send(Release())
                await alpha.send(Bye())
            await beta.send(Release())
            await beta.send(Bye())
        await server.settle()

    run_virtual(scenario())


def test_a_session_that_has_nothing_open_ends_with_its_identity(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blockrep.audit")

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with server.session("alpha") as idle, server.session("beta") as other:
            server.change_rules(AccessPolicy({"alpha": LISTING, "beta": RULES["beta"]}, None))
            server.change_rules(AccessPolicy({"beta": RULES["beta"]}, None))
            server.change_rules(AccessPolicy({"beta": RULES["beta"]}, None))
            with pytest.raises(RefusedError):
                await idle.receive_any()
            await other.send(Bye())
        await server.settle()

    run_virtual(scenario())
    ended = [one.getMessage() for one in caplog.records if '"ended"' in one.getMessage()]
    assert len(ended) == 1
    assert '"identity": "alpha"' in ended[0]


def test_sessions_of_revoked_certificates_are_ended_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(None, None))
        async with (
            server.session("alpha", serial=7) as revoked,
            server.session("beta", serial=8) as other,
            server.session("user:root") as local,
        ):
            server.service.revoke({7, 9})
            with pytest.raises(RefusedError, match="was revoked"):
                await revoked.receive_any()
            await other.send(Bye())
            await local.send(Bye())
        await server.settle()

    run_virtual(scenario())


def test_a_revoked_certificate_is_not_welcome_however_it_got_through_the_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blockrep.audit")

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(None, None))
        server.service.revoke({7})
        with pytest.raises(RefusedError, match="was revoked"):
            async with server.session("alpha", serial=7):
                pass
        await server.settle()
        server.service.revoke({8})
        async with server.session("alpha", serial=7) as again:
            await again.send(Bye())
        await server.settle()

    run_virtual(scenario())
    lines = [one.getMessage() for one in caplog.records if one.name == "blockrep.audit"]
    events = [json.loads(line)["event"] for line in lines]
    assert events == ["refused", "authenticated"]


def test_a_list_that_comes_meanwhile_does_not_cut_a_refusal_off(tmp_path: Path) -> None:
    """Who is refused hears why: a reset would say that the connection was lost (I10)."""

    async def scenario() -> None:
        serving_service = service(tmp_path)
        serving_service.revoke({7})
        left, right = memory_pair(16)  # what is refused waits for its reader
        right.peer = PeerInfo("alpha", "memory", "", serial=7)
        serving = asyncio.create_task(serving_service.serve(right))
        await asyncio.sleep(0.1)
        serving_service.revoke({7, 8})
        await asyncio.sleep(0.1)
        async with Channel(left, Side.CLIENT) as client:
            with contextlib.suppress(ConnectionLostError):
                await client.send(Hello((1, 1), (), "t"))
            with pytest.raises(RefusedError, match="was revoked"):
                await client.receive(Welcome)
        await serving

    run_virtual(scenario())


NOW_SECONDS = 1_700_000_000


def test_a_certificate_that_has_expired_meanwhile_is_not_welcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(None, None))
        with pytest.raises(RefusedError, match=r"has expired.*blockrep certs renew alpha"):
            async with server.session("alpha", until=NOW_SECONDS):
                pass
        await server.settle()

    run_virtual(scenario())


@pytest.mark.parametrize(("back_seconds", "lasts_seconds"), [(0, 100), (50, 150), (5000, 5100)])
def test_a_session_ends_with_its_certificate_whatever_becomes_of_the_clock(
    tmp_path: Path, back_seconds: int, lasts_seconds: int
) -> None:
    """Set back, it makes the certificate last longer, not for ever; set ahead, it is noticed."""

    async def scenario() -> float:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        loop = asyncio.get_running_loop()
        began, back = loop.time(), 0
        with contextlib.ExitStack() as stack:
            ticking = asyncio.create_task(tick(server, lambda: -back))
            stack.callback(ticking.cancel)
            async with server.session("alpha", until=NOW_SECONDS + 100) as channel:
                await channel.send(Open("push", "vg/a", ""))
                await channel.receive(Volume)
                await asyncio.sleep(10)
                back = back_seconds
                with pytest.raises(RefusedError, match="has expired"):
                    await channel.receive_any()
            await server.settle()
        return loop.time() - began

    lasted_seconds = run_virtual(scenario())
    assert lasts_seconds <= lasted_seconds <= lasts_seconds + 10


def test_a_clock_that_is_set_ahead_is_noticed_within_the_hour(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        loop = asyncio.get_running_loop()
        async with server.session("alpha", until=NOW_SECONDS + 90 * 86400) as channel:
            await channel.send(Open("push", "vg/a", ""))
            await channel.receive(Volume)
            server.now_seconds += 91 * 86400
            with pytest.raises(RefusedError, match="has expired"):
                await channel.receive_any()
            assert loop.time() <= 3610
        await server.settle()

    run_virtual(scenario())


async def tick(server: MemoryServer, change_seconds: Callable[[], int]) -> None:
    """Let the server's wall clock go on with the loop's."""
    loop = asyncio.get_running_loop()
    while True:
        server.now_seconds = NOW_SECONDS + int(loop.time()) + change_seconds()
        await asyncio.sleep(1)


def test_a_push_ends_with_its_certificate_and_resumes_with_the_next(tmp_path: Path) -> None:
    rule = TargetRule("vg/a", "vg/a", rate_bytes_per_second=65536)

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (rule,)}, None))
        server.write(0, bytes(range(1, 256)) * 1028)
        ticking = asyncio.create_task(tick(server, lambda: 0))
        with pytest.raises(RefusedError, match="has expired"):
            await server.run("alpha", "push", "vg/a", until=NOW_SECONDS + 2)
        staged = server.replica.volume("vg/a").stage
        assert staged is not None, "what was durable is kept"
        transfers, _ = await server.run("alpha", "push", "vg/a", until=NOW_SECONDS + 1000)
        assert transfers[0].mode is Mode.RESUME
        ticking.cancel()
        await server.settle()

    run_virtual(scenario())


def test_a_session_that_ends_by_rules_does_not_end_who_serves_it(tmp_path: Path) -> None:
    async def scenario() -> str:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        left, right = memory_pair(client_name="alpha")

        async def serve_one_and_go_on() -> str:
            await server.service.serve(right)
            await asyncio.sleep(1)
            return "went on"

        serving = asyncio.create_task(serve_one_and_go_on())
        async with Channel(left, Side.CLIENT) as client:
            await client.send(Hello((1, 1), (), "t"))
            await client.receive(Welcome)
            server.change_rules(AccessPolicy({}, None))
            with pytest.raises(RefusedError):
                await client.receive_any()
        return await serving

    assert run_virtual(scenario()) == "went on"


def test_a_server_that_stops_interrupts_its_sessions(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with server.session("alpha") as client:
            closing = asyncio.create_task(server.service.close())
            with pytest.raises(ConnectionLostError):
                await client.receive_any()
        await closing
        with pytest.raises(asyncio.CancelledError):
            await server.settle()

    run_virtual(scenario())


def test_a_session_waits_in_vain_no_longer_when_its_right_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        async with server.session("alpha") as first, server.session("alpha") as second:
            await first.send(Open("push", "vg/a", ""))
            await first.receive(Volume)
            await second.send(Open("list", "vg/a", ""))
            await asyncio.sleep(0.5)
            server.change_rules(AccessPolicy({"alpha": LISTING}, None))
            with pytest.raises(RefusedError):
                await first.receive_any()
            await second.receive(Volume)
            await second.send(Release())
            await second.send(Bye())
        await server.settle()

    run_virtual(scenario())


async def test_a_push_under_way_ends_as_refused_and_resumes_when_it_is_allowed_again(
    tmp_path: Path,
) -> None:
    hosts = Hosts(tmp_path)
    hosts.fill(4 * MIB)
    forbidden: list[str] = []

    def allowed(_identity: str, volume: str, _operation: str) -> Allowed | None:
        return None if forbidden else Allowed(VolumeName(path=volume))

    def forbid(event: events.Event, _cable: MemoryTransport) -> None:
        if isinstance(event, events.Progress) and event.durable_bytes and not forbidden:
            forbidden.append("now")
            assert hosts.service is not None
            hosts.service.change_rules(allowed, lambda _identity: True)

    hosts.allowed, hosts.on_event = allowed, forbid
    with pytest.raises(RefusedError, match="not allow it any more"):
        await hosts.push()
    assert not hosts.replica.exists()
    hosts.on_event = None
    forbidden.clear()
    transfers = await hosts.push()
    assert transfers[0].mode is Mode.RESUME
    assert hosts.equal()


def test_sessions_under_one_rule_share_its_rate(tmp_path: Path) -> None:
    async def scenario() -> float:
        rule = TargetRule("web/*", "vg/web-*", rate_bytes_per_second=65536)
        server = MemoryServer(tmp_path, AccessPolicy({"alpha": (rule,), "beta": (rule,)}, None))
        server.write(0, bytes(range(1, 256)) * 1028)  # all but four bytes of it
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.gather(*(server.run("alpha", "push", f"web/{name}") for name in "ab"))
        both = loop.time() - start
        await server.run("beta", "push", "web/c")
        assert both > 1.8 * (loop.time() - start - both)
        await server.settle()
        return both

    # Twice 256 KiB at 64 KiB a second, less the burst.
    assert 7 <= run_virtual(scenario()) <= 12
