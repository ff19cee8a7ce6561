"""Identity x target x operation through the real server: what no rule allows is not done, looks the
same whether it exists or not, and costs no look at the storage."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockrep.client.pulling import PullOptions, _OneTarget
from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import BlockrepError, RefusedError
from blockrep.protocol.frames import FrameType, encode_frame
from blockrep.protocol.messages import Compare, Message, Open, Prune, Pull, StageRequest, Volume
from blockrep.replication.receiver import Receiver, ReceiverLimits
from blockrep.storage.memory import MemorySource, MemoryTarget
from support.memory_server import SIZE_BYTES, MemoryServer
from support.sessions import BEGIN, ID
from support.virtual_time import InlineBlocking, run_virtual

ALL = frozenset(OPERATIONS)
TARGETS = ("vg/a", "vg/real-a", "vg/b", "vg/secret", "vg/nothing")
#: What a volume can be opened for; a client can ask to be sent one, too.
OPENED_FOR = ("push", "verify", "list", "prune")
ASKED = (*OPENED_FOR, "pull")
RULES = {
    "root": tuple(
        TargetRule(name, volume, ALL)
        for name, volume in (("vg/a", "vg/real-a"), ("vg/b", "vg/b"), ("vg/secret", "vg/secret"))
    ),
    "alpha": (TargetRule("vg/a", "vg/real-a", ALL),),
    "beta": (TargetRule("vg/a", "vg/real-a", frozenset({"list"})),),
    "gamma": (TargetRule("vg/b", "vg/b"),),
    "delta": (
        TargetRule("vg/b", "vg/b", frozenset({"prune"})),
        TargetRule("vg/secret", "vg/secret", frozenset({"pull"})),
        TargetRule("vg/*", "vg/real-*", frozenset({"verify"})),
    ),
    "empty": (),
}
#: Everything that is allowed; (identity, target) -> operations.
ALLOWED = {
    ("alpha", "vg/a"): set(ASKED),
    ("beta", "vg/a"): {"list"},
    ("gamma", "vg/b"): {"push", "verify", "list"},
    ("delta", "vg/b"): {"prune", "verify"},
    ("delta", "vg/a"): {"verify"},
    ("delta", "vg/real-a"): {"verify"},
    ("delta", "vg/secret"): {"verify", "pull"},
    ("delta", "vg/nothing"): {"verify"},
}
VOLUMES = {"vg/a": "vg/real-a", "vg/b": "vg/b", "vg/secret": "vg/secret"}
IDENTITIES = ("alpha", "beta", "gamma", "delta", "empty", "stranger", "Alpha", "")


def seeded(tmp_path: Path) -> Coroutine[Any, Any, MemoryServer]:
    async def make() -> MemoryServer:
        server = MemoryServer(tmp_path, AccessPolicy(RULES, None))
        for number in range(2):
            server.write(0, bytes([number + 1]) * 4096)
            for target in ("vg/a", "vg/b", "vg/secret"):
                await server.run("root", "push", target)
        await server.settle()
        server.opened.clear()
        return server

    return make()


def refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(one.getMessage()) for one in caplog.records if "audit" in one.name]
    return [line for line in lines if line["event"] == "refused"]


def answer(error: BlockrepError, target: str) -> dict[str, str]:
    """Return what a client learns, but for the name that it asked for itself."""
    assert (error.where or "").endswith(f": {target}" if target else "")
    return {key: value for key, value in error.as_fields().items() if key != "where"}


DENIED = [
    (identity, target, operation)
    for identity in IDENTITIES
    for target in TARGETS
    for operation in ASKED
    if operation not in ALLOWED.get((identity, target), set())
]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_what_is_not_allowed_looks_like_what_does_not_exist(
    identity: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blockrep.audit")

    async def scenario() -> None:
        server = await seeded(tmp_path)
        locks, content = server.locks(), server.replica.used_bytes()
        answers: dict[str, list[dict[str, str]]] = {operation: [] for operation in ASKED}
        denied = [(target, one) for who, target, one in DENIED if who == identity]
        for target, operation in denied:
            with pytest.raises(RefusedError) as caught:
                await server.run(identity, operation, target)
            answers[operation].append(answer(caught.value, target))
        await server.settle()
        for alike in answers.values():
            assert all(one == alike[0] for one in alike)
        assert server.opened == [], "the storage was not so much as looked at"
        assert server.locks() == locks
        assert server.replica.used_bytes() == content
        told = [(one["volume"], one["operation"]) for one in refusals(caplog)]
        assert told == denied

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("identity", "target", "operation"),
    [
        (identity, target, operation)
        for (identity, target), operations in ALLOWED.items()
        if target in VOLUMES
        for operation in sorted(operations)
        # Its rule for verifying makes another volume of the name.
        if (identity, operation) != ("delta", "verify")
    ],
)
def test_what_is_allowed_is_done_to_that_volume_alone(
    identity: str, target: str, operation: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        server = await seeded(tmp_path)
        server.write(4096, b"new" * 100)
        before = {one: len(server.goods(one)) for one in ("vg/real-a", "vg/b", "vg/secret")}
        await server.run(identity, operation, target)
        await server.settle()
        volume = VOLUMES[target]
        assert set(server.opened) == {volume}
        change = {"push": 1, "prune": -1}.get(operation, 0)
        after = {one: len(server.goods(one)) for one in before}
        assert after == {**before, volume: before[volume] + change}
        held = MemorySource(server.replica, volume).snapshots()
        assert [one.target for one in held] == ["pull by " + identity + ": /pulled"] * (
            operation == "pull"
        )
        if operation == "pull":
            assert server.origin.read("/pulled") == server.replica.read(volume)

    run_virtual(scenario())


def test_the_denied_and_the_allowed_are_everything() -> None:
    allowed = sum(len(operations) for operations in ALLOWED.values())
    assert len(DENIED) + allowed == len(IDENTITIES) * len(TARGETS) * len(ASKED)


STAGE = StageRequest(ID, ID, 1, 0, SIZE_BYTES, allow_shrink=True)
FRAMES: dict[str, tuple[Message, str]] = {
    "begin": (BEGIN, "push"),
    "adopt": (Compare("", STAGE, 4096, bytes(8)), "push"),
    "compare": (Compare(ID, None, 4096, bytes(8)), "verify"),
    "prune": (Prune(1), "prune"),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("operation", OPENED_FOR)
def test_a_volume_that_was_opened_for_one_thing_is_not_open_for_another(
    frame: str, operation: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message, needed = FRAMES[frame]
    if needed == operation:
        return
    caplog.set_level(logging.INFO, "blockrep.audit")

    async def scenario() -> None:
        server = await seeded(tmp_path)
        async with server.session("alpha") as channel:
            await channel.send(Open(operation, "vg/a", ""))
            await channel.receive(Volume)
            await channel.send(message)
            with pytest.raises(RefusedError, match=f"to {operation}, not to {needed}"):
                await channel.receive_any()
        await server.settle()
        assert len(server.goods("vg/real-a")) == 2
        assert server.replica.volume("vg/real-a").stage is None
        assert len(refusals(caplog)) == 1

    run_virtual(scenario())


#: Names that parse as nothing of ours, or that would mean something to a shell, LVM or a path.
HOSTILE = [
    "", "../x", "-rf", "--/x", "@tag", "vg/@tag", "x" * 4096, "vg/" + "x" * 4093, "vg", "vg/", "/",
    "vg/..", "./..", ".", "/etc/passwd", "/dev/mapper/vg-a", "/srv/../etc/passwd", "./a/../../x",
    "vg/a --force", "vg/a;id", "vg/$(id)", "vg/`id`", "vg/a'", 'vg/a"', "vg/*", "vg/?", "*/*",
    "vg/a/b", "vg//a", " vg/a", "vg/a ", "VG/a", "vg/real-a_tmeta", "vg/a%", "vg/\u00e4", "mine/..",
    "mine/.", "mine/-rf", "mine/@tag", "/backup/..", "/backup/.", "/backup/x/../../y",
    "/backup//x", "/backup/", "vg\\a",
]  # fmt: skip
#: Names that no frame may carry; a client of ours could not so much as send them.
UNSPEAKABLE = [
    "vg/a\n",
    "\nvg/a",
    "vg/a\0",
    "\0",
    "vg/a\r\n",
    "vg/\x1b[2J",
    "vg/\u202ea",
    "x" * 4097,
]
WIDE = AccessPolicy(
    {
        "alpha": (
            TargetRule("mine/*", "alpha/*", ALL),
            TargetRule("/backup/*", "/srv/replicas/*", ALL),
            TargetRule("vg/a", "vg/real-a", ALL),
        )
    },
    Path("/srv/images"),
)
ANYONE = AccessPolicy(None, Path("/srv/images"))
NOT_FOR_ANYONE = [one for one in HOSTILE if one != "VG/a"]


PULL = Pull(
    "vg/a",
    "/pulled",
    full=False,
    adopt=False,
    shrink=False,
    compress=False,
    max_payload_bytes=65536,
    window_bytes=4 * 65536,
)


async def ask(
    server: MemoryServer, operation: str, name: str, target: str = "/pulled"
) -> BlockrepError:
    """Ask for a volume by a frame that no check of our own client stands before."""
    async with server.session("alpha") as channel:
        frame = encode_frame(
            FrameType.OPEN, {"operation": operation, "volume": name, "identity": ""}
        )
        if operation == "pull":
            header = {**PULL.header_to_send(), "volume": name, "target": target}
            frame = encode_frame(FrameType.PULL, header)
        await channel._transport.send([frame])
        with pytest.raises(BlockrepError) as caught:
            await channel.receive_any()
    return caught.value


@pytest.mark.parametrize("operation", ASKED)
@pytest.mark.parametrize(
    ("policy", "names"), [(WIDE, HOSTILE), (ANYONE, NOT_FOR_ANYONE)], ids=["rules", "no rules"]
)
def test_hostile_names_are_refused_like_any_other(
    policy: AccessPolicy, names: list[str], operation: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, policy)
        what = set()
        for name in names:
            error = await ask(server, operation, name)
            assert isinstance(error, RefusedError), name
            what.add((error.what, error.safe, error.next_step))
        await server.settle()
        assert len(what) == 1
        assert server.opened == []
        assert server.locks() == set()

    run_virtual(scenario())


@pytest.mark.parametrize("operation", ASKED)
def test_names_that_no_frame_may_carry_break_the_protocol(operation: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, ANYONE)
        for name in UNSPEAKABLE:
            assert (await ask(server, operation, name)).code == "protocol", name
        for word in ("format", "", "push\n", "push,list", "PUSH"):
            assert (await ask(server, word, "vg/a")).code == "protocol", word
        if operation == "pull":
            for name in (*UNSPEAKABLE, "x" * 256, "x" * 4096, "\u00e9" * 128):
                assert (await ask(server, operation, "vg/a", name)).code == "protocol", name
        await server.settle()
        assert server.opened == []

    run_virtual(scenario())


LIMITS = ReceiverLimits(65536, 4 * 65536, heartbeat_seconds=5, timeout_seconds=30)


async def pull_to(server: MemoryServer, target: str) -> None:
    """Pull what alpha may, as a client that calls its replica whatever it likes."""
    async with server.session("alpha") as channel:
        await channel.send(replace(PULL, target=target))
        gate = _OneTarget(MemoryTarget(server.origin, "/pulled"), PullOptions(LIMITS))
        nobody = lambda _event, _fields: None  # noqa: E731
        await Receiver(channel, "", gate, InlineBlocking(), LIMITS, (), nobody).answer()
    await server.settle()


@pytest.mark.parametrize(
    "target",
    [
        *(name for name in HOSTILE if len(name) <= 255),
        ".blockrep",
        ".blockrep/x",
        "/srv/.blockrep/../x",
        "br_g_x",
        "vg/br_s_x",
        "{0}",
        "{}{volume}",
        "x" * 255,
        "\u00e9" * 127,
        "pull by root: /pulled",
        "beta: /pulled",
    ],
)
def test_a_name_that_a_client_gives_its_replica_is_nothing_but_a_name(
    target: str, tmp_path: Path
) -> None:
    """The server keeps it with the snapshots that it holds; it is no path, volume, option here."""

    async def scenario() -> None:
        server = await seeded(tmp_path)
        names = set(server.replica._volumes)
        await pull_to(server, target)
        server.write(0, b"changed")
        await server.run("root", "push", "vg/a")
        await pull_to(server, target)
        assert set(server.opened) == {"vg/real-a"}
        (held,) = MemorySource(server.replica, "vg/real-a").snapshots()
        assert held.target == f"pull by alpha: {target}"
        assert set(server.replica._volumes) == names
        assert all(re.fullmatch(r"locks|[0-9a-f]{32}\.lock", one) for one in server.locks())
        assert server.origin.read("/pulled") == server.replica.read("vg/real-a")

    run_virtual(scenario())
