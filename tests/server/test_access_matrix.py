"""Identity x target x operation through the real server: what no rule allows is not done, looks the
same whether it exists or not, and costs no look at the storage."""

from __future__ import annotations

import json
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import BlockrepError, RefusedError
from blockrep.protocol.frames import FrameType, encode_frame
from blockrep.protocol.messages import Compare, Message, Open, Prune, StageRequest, Volume
from support.memory_server import SIZE_BYTES, MemoryServer
from support.sessions import BEGIN, ID
from support.virtual_time import run_virtual

ALL = frozenset(OPERATIONS)
TARGETS = ("vg/a", "vg/real-a", "vg/b", "vg/secret", "vg/nothing")
#: What a client can ask for by a frame of this version.
ASKED = ("push", "verify", "list", "prune")
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
    ("delta", "vg/secret"): {"verify"},
    ("delta", "vg/nothing"): {"verify"},
}
VOLUMES = {"vg/a": "vg/real-a", "vg/b": "vg/b"}
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
    assert error.where == target
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
        if (identity, target, operation) != ("delta", "vg/b", "verify")
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
@pytest.mark.parametrize("operation", ASKED)
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


async def ask(server: MemoryServer, operation: str, name: str) -> BlockrepError:
    """Open a volume by a frame that no check of our own client stands before."""
    async with server.session("alpha") as channel:
        header = {"operation": operation, "volume": name, "identity": ""}
        await channel._transport.send([encode_frame(FrameType.OPEN, header)])
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
        await server.settle()
        assert server.opened == []

    run_virtual(scenario())
