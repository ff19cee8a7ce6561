"""What the vectors are made of: messages, plans, and how they look as JSON."""  # noqa: INP001 - a folder of programs, not a package

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgpack
import xxhash

from blockrep.model.extents import Extent, ExtentKind, digest
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.messages import (
    Begin,
    Data,
    Hello,
    Message,
    Open,
    Pull,
    StageRequest,
    Volume,
    Welcome,
    encode_message,
)

Json = dict[str, Any]

LINEAGE = "4c494e45" * 4
FIRST = "01" * 16
SECOND = "02" * 16
SIZE_BYTES = 1 << 20
SEED = 0x0123456789ABCDEF

HELLO = Hello((1, 1), ("zstd",), "blockrep 0.1.0")
WELCOME = Welcome(1, ("zstd",), "blockrep 0.1.0", "origin.example", 524288, 268435456, 5000, 30000)
ABSENT = Volume(
    exists=False,
    owned=False,
    drifted=False,
    kind="",
    identity="",
    size_bytes=0,
    block_bytes=65536,
    align_bytes=1,
    lineage="",
    chunk_bytes=65536,
    free_bytes=1 << 40,
    metadata_free_chunks=1 << 20,
    staging=None,
)
REPLICA = replace(
    ABSENT,
    exists=True,
    owned=True,
    kind="lvm-thin",
    identity="aBcDeF-0123-4567-89ab-cdef-0123-456789",
    size_bytes=SIZE_BYTES,
    lineage=LINEAGE,
)
FOREIGN = replace(REPLICA, owned=False, lineage="")
PUSH = Open("push", "vgreplica/thinv_replica", "sOuRcE-0123-4567-89ab-cdef-0123-456789")

PULL = Pull(
    "volg/thin_volume",
    "vgreplica/thinv_replica",
    full=False,
    adopt=False,
    shrink=False,
    compress=False,
    max_payload_bytes=524288,
    window_bytes=268435456,
)


def data(*segments: tuple[int, int, int], content: bytes = b"") -> Data:
    """Return the DATA message of (kind, offset, length) segments; see :func:`chained`."""
    extents = tuple(Extent(offset, length, ExtentKind(kind)) for kind, offset, length in segments)
    content_digest = xxhash.xxh3_128_digest(content)
    return Data(extents, content_digest, bytes(32), None, memoryview(content))


def compressed(offset_bytes: int, byte: int, length_bytes: int) -> Data:
    """Return a DATA message of one repeated byte, as a zstd frame with one run-length block.

    Made by hand, so that the vector does not depend on a library's version.
    """
    header = bytes.fromhex("28b52ffda0") + length_bytes.to_bytes(4, "little")
    block = (length_bytes << 3 | 1 << 1 | 1).to_bytes(3, "little") + bytes([byte])
    content_digest = xxhash.xxh3_128_digest(bytes([byte]) * length_bytes)
    extent = Extent(offset_bytes, length_bytes)
    return Data((extent,), content_digest, bytes(32), length_bytes, memoryview(header + block))


# Plans.

PLAN_FULL = (Extent(0, 48), Extent(4096, 4096, ExtentKind.ZERO), Extent(65536, 8192))
PLAN_DELTA = (Extent(16, 16), Extent(4096, 4096, ExtentKind.DISCARD), Extent(131072, 32))
PLAN_ADOPT = (Extent(4096, 4096),)
STAGE = StageRequest(LINEAGE, FIRST, 1, 1_700_000_000, SIZE_BYTES, allow_shrink=False)


def begin(
    snapshot_id: str, plan: Sequence[Extent], *, base: str = "", adopt: bool = False
) -> Begin:
    """Return BEGIN for a plan."""
    data_bytes = sum(one.length_bytes for one in plan if one.kind is ExtentKind.DATA)
    return Begin(
        lineage=LINEAGE,
        snapshot_id=snapshot_id,
        sequence=2 if base else 1,
        created_seconds=1_700_000_000,
        base_id=base,
        mode="adopt" if adopt else "incremental" if base else "full",
        size_bytes=SIZE_BYTES,
        extent_count=len(plan),
        data_bytes=data_bytes,
        discard_bytes=sum(one.length_bytes for one in plan) - data_bytes,
        plan_digest=digest(plan),
        new_chunks=2,
        allow_shrink=False,
    )


def chained(before: bytes, frames: Iterable[Data]) -> list[Data]:
    """Return the frames as they follow, one upon the other, the chain ``before``."""
    result = []
    for frame in frames:
        before = advance_chain(before, frame.segments, frame.content_digest)
        result.append(replace(frame, chain=before))
    return result


# Messages -> JSON.


def plain(value: object) -> Any:
    """Return a header as JSON: binary becomes {"bin": hexadecimal}."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


def described(message: Message) -> Json:
    """Return type, header, payload and bytes of a message."""
    return {
        "frame": message.TYPE.name,
        "header": plain(message.header_to_send()),
        "payload": bytes(message.payload_to_send()).hex(),
        "hex": b"".join(encode_message(message)).hex(),
    }


def raw_frame(
    frame_type: int,
    header: object,
    payload: bytes = b"",
    *,
    flags: int = 0,
    magic: bytes = b"BRP1",
    packed: bytes | None = None,
    payload_bytes: int | None = None,
    check: int = 0,
) -> bytes:
    """Return a frame with whatever is in it; ``check`` is added to the right value."""
    packed = msgpack.packb(header) if packed is None else packed
    length_bytes = len(payload) if payload_bytes is None else payload_bytes
    prefix = magic + bytes([frame_type, flags])
    prefix += len(packed).to_bytes(2, "big") + length_bytes.to_bytes(4, "big")
    value = (xxhash.xxh3_64_intdigest(prefix + packed) + check) & 0xFFFFFFFF
    return prefix + value.to_bytes(4, "big") + packed + payload
