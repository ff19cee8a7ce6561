"""Single frames: valid ones of every type, and those that must be refused."""  # noqa: INP001 - a folder of programs, not a package

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgpack
from examples import (
    ABSENT,
    FIRST,
    HELLO,
    LINEAGE,
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
    compressed,
    data,
    described,
    raw_frame,
)

from blockrep.model.extents import digest
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
    Digests,
    Hello,
    Message,
    Open,
    Ping,
    Prune,
    Pruned,
    Ready,
    Release,
    Welcome,
)

# Single frames.


def valid_messages() -> Iterable[tuple[str, Message]]:
    """Yield every type, the smallest and the largest values of its keys among them."""
    top = (1 << 63) - 1
    staging = StagingInfo("staging-uuid", LINEAGE, FIRST, SECOND, b"\x11" * 32, 4096, b"\x22" * 32)
    good = Snapshot(FIRST, LINEAGE, 1, 1_700_000_000, SIZE_BYTES, committed=True, digest="ab" * 32)
    yield "hello", HELLO
    yield "hello without features, wide range", Hello((0, top), (), "")
    yield "welcome", WELCOME
    yield "welcome with the smallest limits", Welcome(1, (), "", "", 65536, 262144, 100, 200)
    yield (
        "welcome with the largest limits",
        Welcome(1, (), "", "é" * 127, 4194304, 1 << 34, 1_800_000, 3_600_000),
    )
    yield "open for a push", PUSH
    yield "open for a list, non-ASCII path", Open("list", "/srv/größe.img", "")
    yield "volume that does not exist", ABSENT
    yield (
        "volume with a staging and two snapshots",
        replace(
            REPLICA,
            drifted=True,
            align_bytes=65536,
            staging=staging,
            snapshots=(
                replace(good, digest=""),
                replace(good, id=SECOND, sequence=top, allocated_bytes=65536),
            ),
        ),
    )
    yield (
        "volume with a staging without base",
        replace(ABSENT, staging=replace(staging, base_id="", cursor_bytes=0)),
    )
    yield "begin full", begin(FIRST, PLAN_FULL)
    yield "begin incremental", begin(SECOND, PLAN_DELTA, base=FIRST)
    yield "ready at the start", Ready("staging-uuid", 0, first_chain(FIRST, digest(PLAN_FULL)))
    yield "data of every kind", data((0, 0, 4), (1, 4, 8), (2, 64, 64), content=b"abcd")
    yield "data without content", data((1, 0, 1 << 30))
    yield "data of two segments", data((0, 0, 3), (0, 10, 2), content=b"abcde")
    yield "data, compressed", compressed(65536, 0xAB, 8192)
    yield "data with 512 segments", data(*((1, 2 * index, 1) for index in range(512)))
    yield "data up to the last offset", data((1, top - 1, 1))
    yield "ack", Ack(8192, 4096)
    yield "ack of the last offset", Ack(top, top)
    yield "commit", Commit(FIRST, b"\x33" * 32)
    yield "committed", Committed(FIRST, b"\x33" * 32, "vgreplica/br_g_thinv_replica_1", 1)
    yield "compare a snapshot", Compare(FIRST, None, 65536, SEED.to_bytes(8, "big"))
    yield "compare to adopt", Compare("", STAGE, 4096, SEED.to_bytes(8, "big"))
    yield "digests", Digests(0, 2, zero=False, payload=memoryview(bytes(range(32))))
    yield "digests of zeros", Digests(top, 1 << 40, zero=True)
    yield "compared", Compared(SIZE_BYTES)
    yield "release", Release()
    yield "ping", Ping()
    yield (
        "abort",
        Abort("no-space", "the pool is full", "vgreplica/pool", "nothing was", "lvextend"),
    )
    yield "abort with an unknown code", Abort("newer-than-you", "something else")
    yield "bye", Bye()
    yield "open to prune", Open("prune", "vgreplica/thinv_replica", "")
    yield "prune to the newest", Prune(1)
    yield "prune, the largest number", Prune(top)
    yield "pruned", Pruned(2, 3)
    yield "pull", PULL
    yield (
        "pull everything again, compressed",
        replace(PULL, full=True, compress=True, max_payload_bytes=65536, window_bytes=1 << 34),
    )
    yield "pull to the longest name", replace(PULL, target="x" * 255)
    yield "pull and take over, smaller if need be", replace(PULL, adopt=True, shrink=True)


def decode_only() -> Iterable[Json]:
    """Yield frames that a receiver must take although no sender here writes them."""
    ack = {"received": 2, "durable": 1}
    yield {
        "name": "keys that nobody knows are ignored",
        "frame": "ACK",
        "header": ack,
        "payload": "",
        "hex": raw_frame(8, {**ack, "later": {"than": ["this", None, True]}}).hex(),
    }
    yield {
        "name": "another order of the keys",
        "frame": "ACK",
        "header": ack,
        "payload": "",
        "hex": raw_frame(8, {"durable": 1, "received": 2}).hex(),
    }
    long_form = b"\xde\x00\x02\xd9\x08received\xcf" + (2).to_bytes(8, "big")
    long_form += b"\xda\x00\x07durable\xd3" + (1).to_bytes(8, "big")
    yield {
        "name": "longer msgpack forms than needed",
        "frame": "ACK",
        "header": ack,
        "payload": "",
        "hex": raw_frame(8, None, packed=long_form).hex(),
    }
    message = Abort("busy", "locked")
    yield {
        **described(message),
        "name": "an optional key that is nil",
        "hex": raw_frame(16, {"code": "busy", "what": "locked", "where": None}).hex(),
    }


def ignored() -> Iterable[Json]:
    """Yield frames of optional types, which who does not know them skips."""
    yield {"name": "optional type", "hex": raw_frame(0x80, {"any": "thing"}).hex()}
    yield {
        "name": "optional type with a payload and a header that is no map",
        "hex": raw_frame(0xFF, None, b"payload", packed=b"\xc1").hex(),
    }


# Frames that must be refused.

_MSGPACK = "a header is not valid msgpack"
_PLAIN = "a header is not a map of plain values"


def invalid_prefixes() -> Iterable[tuple[str, bytes, str]]:
    """Yield (name, bytes, how the error begins) for prefixes and headers as such."""
    size = "a frame of type 0x0f has a wrong size"
    yield "another magic", raw_frame(15, {}, magic=b"BRP2"), "the peer does not speak the blockrep"
    yield "an unknown flag", raw_frame(15, {}, flags=1), "a frame has unknown flags 0x01"
    yield "type 00", raw_frame(0, {}), "a frame has the unknown type 0x00"
    yield "type 15", raw_frame(0x15, {}), "a frame has the unknown type 0x15"
    yield "type 7f", raw_frame(0x7F, {}), "a frame has the unknown type 0x7f"
    yield "no header", raw_frame(15, {}, packed=b""), size
    yield "header too long", raw_frame(15, {}, packed=bytes(16385))[:16], size
    yield "payload where there is none", raw_frame(15, {}, b"x"), size
    yield "payload too long", raw_frame(4, {}, payload_bytes=4194305)[:16], "a frame of type 0x04"
    yield "optional, too long", raw_frame(0x90, {}, payload_bytes=4194305)[:16], "a frame of type"
    yield "damaged", raw_frame(15, {}, check=1), "a frame's header is damaged (wrong check value)"
    yield "optional, damaged", raw_frame(0x80, {}, check=1), "a frame's header is damaged"
    yield "not msgpack", raw_frame(15, {}, packed=b"\xc1"), _MSGPACK
    yield "cut msgpack", raw_frame(15, {}, packed=b"\x81\xa1"), _MSGPACK
    yield "bytes after the map", raw_frame(15, {}, packed=b"\x80\x80"), _MSGPACK
    yield "not a map", raw_frame(15, []), _PLAIN
    yield "a key twice", raw_frame(15, {}, packed=b"\x82\xa1a\x01\xa1a\x01"), _MSGPACK
    yield "a key that is no string", raw_frame(15, {1: 1}), _MSGPACK
    yield "a key that is binary", raw_frame(15, {b"a": 1}), _MSGPACK
    yield "text that is no UTF-8", raw_frame(15, {}, packed=b"\x81\xa1a\xa1\xff"), _MSGPACK
    yield "a float", raw_frame(15, {"a": 1.5}), _PLAIN
    yield "an extension", raw_frame(15, {"a": msgpack.ExtType(5, b"x")}), _MSGPACK
    yield "a timestamp", raw_frame(15, {"a": msgpack.Timestamp(1, 0)}), _MSGPACK
    yield "nested 5 deep", raw_frame(15, {"a": [[[[]]]]}), _PLAIN
    yield "an array of 2049", raw_frame(15, {"a": [0] * 2049}), _MSGPACK
    yield "a map of 65", raw_frame(15, {f"{key:02}": 0 for key in range(65)}), _MSGPACK
    yield "text of 8193", raw_frame(15, {"a": "x" * 8193}), _MSGPACK
    yield (
        "an array said to hold 2^32-1",
        raw_frame(15, {}, packed=b"\x81\xa1a\xdd\xff\xff\xff\xff"),
        _MSGPACK,
    )


def changed(message: Message, payload: bytes | None = None, **keys: object) -> bytes:
    """Return a message's frame with other values of some keys (``...`` leaves one out)."""
    header = {**message.header_to_send(), **keys}
    kept = {key: value for key, value in header.items() if value is not ...}
    content = bytes(message.payload_to_send()) if payload is None else payload
    return raw_frame(message.TYPE, kept, content)


def invalid_keys() -> Iterable[tuple[str, bytes, str]]:
    """Yield (name, bytes, how the error begins) for keys and what ties them."""
    ack, full, hello = Ack(2, 1), begin(FIRST, PLAN_FULL), HELLO
    yield "key missing", changed(ack, durable=...), "ACK: key 'durable' is missing"
    yield "required key nil", changed(ack, durable=None), "ACK: key 'durable': not an integer"
    yield "negative", changed(ack, durable=-1), "ACK: key 'durable': not an integer"
    yield "2^63", changed(ack, received=1 << 63), "ACK: key 'received': not an integer"
    yield "a boolean for a number", changed(ack, durable=True), "ACK: key 'durable': not an integer"
    yield "a number for a boolean", changed(full, shrink=1), "BEGIN: key 'shrink': not a boolean"
    yield "binary for text", changed(hello, software=b"x"), "HELLO: key 'software': not text"
    yield "text for binary", changed(full, id="x" * 16), "BEGIN: key 'id': not 16 bytes"
    yield "id of 15 bytes", changed(full, id=bytes(15)), "BEGIN: key 'id': not 16 bytes"
    yield "digest of 31", changed(full, plan=bytes(31)), "BEGIN: key 'plan': not 32 bytes"
    yield "text too long", changed(hello, software="x" * 65), "HELLO: key 'software': not text"
    yield "too long in bytes", changed(hello, software="é" * 33), "HELLO: key 'software': not text"
    for name, character in (("escape", "\x1b"), ("C1", "\x9b"), ("right-to-left", "\u202e")):
        yield f"text with {name}", changed(hello, software=character), "HELLO: key 'software': text"
    yield "33 features", changed(hello, features=["a"] * 33), "HELLO: key 'features': not an array"
    yield "features no array", changed(hello, features={}), "HELLO: key 'features': not an array"
    yield "one version", changed(hello, versions=[1]), "HELLO: key 'versions': not an array of 2"
    yield "range upside down", changed(hello, versions=[2, 1]), "HELLO: key 'versions': the lowest"
    yield "max_payload", changed(WELCOME, max_payload=65535), "WELCOME: key 'max_payload'"
    yield "window", changed(WELCOME, window=(1 << 34) + 1), "WELCOME: key 'window': not an integer"
    yield "small window", changed(WELCOME, window=2097151), "WELCOME: key 'window': less than 4"
    yield "heartbeat", changed(WELCOME, heartbeat=99), "WELCOME: key 'heartbeat': not an integer"
    yield "short timeout", changed(WELCOME, timeout=9999), "WELCOME: key 'timeout': less than 2"
    yield "long timeout", changed(WELCOME, timeout=3_600_001), "WELCOME: key 'timeout': not an"
    yield "operation", changed(PUSH, operation="delete"), "OPEN: key 'operation': not one of"
    yield "align 0", changed(ABSENT, align=0), "VOLUME: key 'align': not an integer from 1"
    yield "staging", changed(ABSENT, staging=[]), "VOLUME: key 'staging': not a map"
    yield "in it", changed(ABSENT, staging={"identity": ""}), "VOLUME: key 'staging': key 'lineage'"
    yield "95 bytes", changed(ABSENT, bytes(95)), "VOLUME: the payload is not"
    yield "pull full and adopt", changed(PULL, full=True, adopt=True), "PULL: keys 'full' and"
    yield "pull target", changed(PULL, target="x" * 256), "PULL: key 'target': not text of at most"
    yield "pull small window", changed(PULL, window=2097151), "PULL: key 'window': less than 4"
    yield "keep 0", changed(Prune(1), keep=0), "PRUNE: key 'keep': not an integer from 1"
    yield "kept", changed(Pruned(1, 1), kept=-1), "PRUNED: key 'kept': not an integer from 0"
    yield "record", changed(ABSENT, b"\xff" * 96), "VOLUME: a snapshot record has a number above"


def invalid_transfers() -> Iterable[tuple[str, bytes, str]]:
    """Yield (name, bytes, how the error begins) for frames of transfers and comparisons."""
    ack, full = Ack(2, 1), begin(FIRST, PLAN_FULL)
    compare = Compare(FIRST, None, 4096, bytes(8))
    one = data((1, 0, 1))
    yield "mode", changed(full, mode="merge"), "BEGIN: key 'mode': not one of full"
    yield "base and full", changed(full, base=bytes(16)), "BEGIN: key 'base': does not fit mode"
    yield "no base", changed(full, mode="incremental"), "BEGIN: key 'base': does not fit mode"
    yield "size 0", changed(full, size=0), "BEGIN: key 'size': not an integer from 1"
    yield "no segment", changed(one, s=[]), "DATA: key 's': not an array of 3 to 1536 elements"
    yield "513 segments", changed(one, s=[1, 0, 1] * 513), "DATA: key 's': not an array of 3"
    yield "two thirds of one", changed(one, s=[1, 0, 1, 1]), "DATA: key 's': not a whole number"
    yield "kind 3", changed(one, s=[3, 0, 1]), "DATA: key 's': segment 0 is of the unknown"
    yield "empty segment", changed(one, s=[1, 0, 0]), "DATA: key 's': segment 0 is empty"
    yield "overlap", changed(one, s=[1, 0, 2, 1, 1, 2]), "DATA: key 's': segment 1 is empty or"
    yield "over 1 GiB", changed(one, s=[1, 0, 1 << 30, 1, 1 << 40, 1]), "DATA: key 's': covers"
    yield "past 2^63-1", changed(one, s=[1, (1 << 63) - 1, 1]), "DATA: key 's': covers"
    yield "content missing", changed(one, s=[0, 0, 1]), "DATA: segments of 1 bytes do not fit"
    yield "content too much", changed(one, b"x"), "DATA: segments of 0 bytes do not fit"
    yield "z without payload", changed(one, s=[0, 0, 1], z=1), "DATA: a compressed payload is empty"
    yield "z too large", changed(one, b"x", s=[0, 0, 4194305], z=4194305), "DATA: key 'z': not an"
    yield "durable first", changed(ack, durable=3), "ACK: key 'durable': beyond 'received'"
    yield "no subject", changed(compare, id=...), "COMPARE: exactly one of the keys 'id' and"
    stage = Compare("", STAGE, 4096, bytes(8)).header_to_send()["stage"]
    yield "two subjects", changed(compare, stage=stage), "COMPARE: exactly one of the keys 'id' and"
    yield "block", changed(compare, block=12288), "COMPARE: key 'block': not a power of two"
    yield "small block", changed(compare, block=2048), "COMPARE: key 'block': not an integer from"
    yield "count 0", changed(Digests(0, 1, zero=True), count=0), "DIGESTS: key 'count': not an"
    yield "digests short", changed(Digests(0, 1, zero=True), zero=False), "DIGESTS: the payload"
    yield "zeros with payload", changed(Digests(0, 1, zero=True), bytes(16)), "DIGESTS: the payload"
