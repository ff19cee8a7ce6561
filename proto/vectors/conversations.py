"""Digests, and whole conversations between a client and a server."""  # noqa: INP001 - a folder of programs, not a package

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import xxhash
from examples import (
    ABSENT,
    FIRST,
    FOREIGN,
    HELLO,
    LINEAGE,
    PLAN_ADOPT,
    PLAN_DELTA,
    PLAN_FULL,
    PULL,
    PUSH,
    REPLICA,
    SECOND,
    SEED,
    SIZE_BYTES,
    STAGE,
    WELCOME,
    Json,
    begin,
    chained,
    compressed,
    data,
    described,
    plain,
)

from blockrep.model.extents import Extent, digest
from blockrep.model.snapshots import Snapshot, StagingInfo
from blockrep.protocol.chain import first_chain
from blockrep.protocol.messages import (
    Abort,
    Ack,
    Bye,
    Commit,
    Committed,
    Compare,
    Compared,
    Data,
    Digests,
    Hello,
    Message,
    Open,
    Ping,
    Prune,
    Pruned,
    Pull,
    Ready,
    Release,
    Volume,
)
from blockrep.protocol.transitions import Side, State, next_state


def listed(plan: Sequence[Extent]) -> list[list[int]]:
    """Return a plan as [kind, offset, length] of each extent."""
    return [[int(one.kind), one.offset_bytes, one.length_bytes] for one in plan]


def digest_vectors() -> Json:
    """Return plan digests, chains and content digests."""
    first = first_chain(FIRST, digest(PLAN_FULL))
    frames = chained(first, [data((0, 0, 4), (1, 4, 8), content=b"abcd"), data((2, 64, 64))])
    return {
        "plans": [
            {"extents": listed(plan), "digest": digest(plan).hex()}
            for plan in ((), PLAN_FULL, PLAN_DELTA)
        ],
        "chain": {
            "id": FIRST,
            "plan": digest(PLAN_FULL).hex(),
            "frames": [plain(one.header_to_send()) for one in frames],
            "values": [first.hex(), *(one.chain.hex() for one in frames)],
        },
        "content": [
            {"content": content.hex(), "seed": seed, "digest": xxh.hex()}
            for content, seed in ((b"", 0), (b"abcd", 0), (bytes(4096), 0), (b"abcd" * 99, SEED))
            for xxh in [xxhash.xxh3_128_digest(content, seed)]
        ],
    }


# Transcripts.

Step = tuple[str, Message]


def client(*messages: Message) -> list[Step]:
    """Return steps of the client."""
    return [("client", one) for one in messages]


def server(*messages: Message) -> list[Step]:
    """Return steps of the server."""
    return [("server", one) for one in messages]


GREETING = [*client(HELLO), *server(WELCOME)]


def connection(
    steps: Sequence[Step], end: str = "bye", plan: Sequence[Extent] = (), **more: object
) -> Json:
    """Return one connection: the states are those of the machine after each frame."""
    state = State.START
    turned = False
    written: list[Json] = []
    for sender, message in steps:
        side = Side(sender).other if turned else Side(sender)
        after = next_state(state, message.TYPE, side)
        if isinstance(message, Pull):
            after = None if turned else after
            turned = True
        written.append({"from": sender, **described(message)})
        if after is None:
            written[-1]["refused"] = f"{message.TYPE.name} is not allowed in state {state.value}"
            after = State.ABORTED
        state = after
        written[-1]["state"] = state.value
    return {"plan": listed(plan), "steps": written, "end": end, **more}


def transcripts() -> Iterable[Json]:
    """Yield whole conversations."""
    start = Ready("staging-uuid", 0, first_chain(FIRST, digest(PLAN_FULL)))
    frames = chained(
        start.chain,
        [
            data((0, 0, 48), (1, 4096, 4096), content=bytes(range(48))),
            compressed(65536, 0xAB, 8192),
        ],
    )
    done = frames[-1].chain
    committed = Committed(FIRST, done, "vgreplica/br_g_1", 0)
    opened = [*GREETING, *client(PUSH), *server(ABSENT)]
    begun = [*opened, *client(begin(FIRST, PLAN_FULL)), *server(start)]
    whole = [
        *begun,
        *client(*frames),
        *server(Ack(73728, 8192), Ping(), Ack(73728, 73728)),
        *client(Commit(FIRST, done)),
    ]
    yield {
        "name": "a first push",
        "connections": [connection([*whole, *server(committed), *client(Bye())], plan=PLAN_FULL)],
    }
    good = Snapshot(FIRST, LINEAGE, 1, 1_700_000_000, SIZE_BYTES, committed=True, digest=done.hex())
    holding = replace(REPLICA, snapshots=(good,))
    yield {
        "name": "committed is lost; the next connection finds the snapshot listed",
        "connections": [
            connection(whole, "lost", PLAN_FULL),
            connection([*GREETING, *client(PUSH), *server(holding), *client(Release(), Bye())]),
        ],
    }
    yield {
        "name": "a pull",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(PULL),
                    *server(replace(PUSH, volume=PULL.target)),
                    *client(ABSENT),
                    *server(begin(FIRST, PLAN_FULL)),
                    *client(start),
                    *server(*frames),
                    *client(Ack(73728, 73728)),
                    *server(Ping(), Commit(FIRST, done)),
                    *client(committed),
                    *server(Bye()),
                ],
                plan=PLAN_FULL,
            )
        ],
    }
    yield from resumed_transcripts(holding)
    yield from comparing_transcripts(holding, done)
    yield from failing_transcripts(begun, frames)


def resumed_transcripts(holding: Volume) -> Iterable[Json]:
    """Yield an incremental push that is cut and resumed, with other frame borders."""
    start = Ready("staging-uuid", 0, first_chain(SECOND, digest(PLAN_DELTA)))
    first, lost = chained(
        start.chain,
        [
            data((0, 16, 16), (2, 4096, 1024), content=b"0123456789abcdef"),
            data((2, 5120, 3072)),
        ],
    )
    chain = first.chain
    (rest,) = chained(chain, [data((2, 5120, 3072), (0, 131072, 32), content=b"x" * 32)])
    staging = StagingInfo("staging-uuid", LINEAGE, FIRST, SECOND, digest(PLAN_DELTA), 5120, chain)
    done = rest.chain
    announce = begin(SECOND, PLAN_DELTA, base=FIRST)
    yield {
        "name": "an incremental push that is cut, and resumed where the receiver's disk is",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(PUSH),
                    *server(holding),
                    *client(announce),
                    *server(start),
                    *client(first),
                    *server(Ack(5120, 5120)),
                    *client(lost),
                ],
                "lost",
                PLAN_DELTA,
            ),
            connection(
                [
                    *GREETING,
                    *client(PUSH),
                    *server(replace(holding, staging=staging)),
                    *client(announce),
                    *server(Ready("staging-uuid", 5120, chain)),
                    *client(rest, Commit(SECOND, done)),
                    *server(Ack(131104, 131104)),
                    *server(Committed(SECOND, done, "vgreplica/br_g_2", 0)),
                    *client(Bye()),
                ],
                plan=PLAN_DELTA,
            ),
        ],
    }


def comparing_transcripts(holding: Volume, done: bytes) -> Iterable[Json]:
    """Yield list, verify and adoption."""
    seed = SEED.to_bytes(8, "big")
    block = b"\xab" * 4096
    differing = xxhash.xxh3_128_digest(block, SEED)
    digests = [
        Digests(0, 1, zero=True),
        Digests(4096, 1, zero=False, payload=memoryview(differing)),
        Digests(8192, 254, zero=True),
    ]
    yield {
        "name": "a list",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(Open("list", "vgreplica/thinv_replica", "")),
                    *server(holding),
                    *client(Release(), Bye()),
                ]
            )
        ],
    }
    yield {
        "name": "a prune, asked twice",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(Open("prune", "vgreplica/thinv_replica", "")),
                    *server(holding),
                    *client(Prune(1)),
                    *server(Ping(), Pruned(0, 1)),
                    *client(Prune(1)),
                    *server(Pruned(0, 1)),
                    *client(Release(), Bye()),
                ]
            )
        ],
    }
    yield {
        "name": "a verify",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(replace(PUSH, operation="verify")),
                    *server(holding),
                    *client(Compare(FIRST, None, 4096, seed)),
                    *server(*digests, Compared(SIZE_BYTES)),
                    *client(Bye()),
                ],
                contents={"4096": block.hex()},
            )
        ],
    }
    start = first_chain(FIRST, digest(PLAN_ADOPT))
    (frame,) = chained(start, [data((0, 4096, 4096), content=b"\xcd" * 4096)])
    adopted = frame.chain
    yield {
        "name": "an adoption",
        "connections": [
            connection(
                [
                    *GREETING,
                    *client(PUSH),
                    *server(FOREIGN),
                    *client(Compare("", STAGE, 4096, seed)),
                    *server(*digests, Compared(SIZE_BYTES)),
                    *client(begin(FIRST, PLAN_ADOPT, adopt=True)),
                    *server(Ready("staging-uuid", 0, start)),
                    *client(frame, Commit(FIRST, adopted)),
                    *server(Ack(8192, 8192), Committed(FIRST, adopted, "vgreplica/br_g_1", 0)),
                    *client(Bye()),
                ],
                plan=PLAN_ADOPT,
                contents={"4096": block.hex()},
            )
        ],
    }
    assert done != adopted


def failing_transcripts(begun: Sequence[Step], frames: Sequence[Data]) -> Iterable[Json]:
    """Yield conversations that end early."""
    full = Abort("no-space", "the pool has come down to its reserve", "vgreplica/pool")
    refused = Abort("refused", "push is not allowed, or there is no such volume", "vg/secret")
    secret = replace(PUSH, volume="vg/secret")
    stopped = Abort("interrupted", "the peer was interrupted")
    too_old = Abort("protocol", "this server speaks protocol version 1, the client 2 to 3")
    for name, steps, end in (
        ("no version in common", [*client(Hello((2, 3), (), "")), *server(too_old)], "abort"),
        ("a volume that is refused", [*GREETING, *client(secret), *server(refused)], "abort"),
        ("the receiver aborts", [*begun, *client(frames[0]), *server(full)], "abort"),
        ("the sender aborts", [*begun, *client(frames[0], stopped)], "abort"),
        ("the stream ends in the middle", [*begun, *client(frames[0])], "lost"),
        ("data before ready", [*begun[:-1], *client(frames[0])], "refused"),
        ("open as the first frame", client(PUSH), "refused"),
        ("a second hello", [*GREETING, *client(HELLO)], "refused"),
        ("welcome from the client", client(WELCOME), "refused"),
        ("ping before welcome", client(HELLO, Ping()), "refused"),
        ("a push after a pull", [*GREETING, *client(PULL, PUSH)], "refused"),
        ("a pull after a pull", [*GREETING, *client(PULL), *server(PULL)], "refused"),
        ("a pull from the server", [*GREETING, *server(PULL)], "refused"),
        ("acknowledging nothing", [*GREETING, *server(Ack(0, 0))], "refused"),
    ):
        yield {"name": name, "connections": [connection(steps, end, PLAN_FULL)]}
