"""What our volumes are, as LVM tags, and back. Pure.

LVM's tags are up to 1,024 letters, digits and ``_ + . - / = ! : & #``. Ours are ``blockrep`` and
``blockrep.NAME=VALUE``; values of other characters are written ``!XX`` byte by byte.

    role      source: snapshot of a source volume. staging: a transfer writes into it.
              good: committed snapshot of a replica. replica: the replica itself
    lineage, id, seq, created    of the snapshot that this is, or that a staging will become
    size      staging, good: exact size of the source, before LVM rounds up to its extents
    of        lv_uuid of the source volume, or of the replica (empty: a staging that becomes one)
    pool      lv_uuid of the pool in which the snapshot was taken
    state     source: pending or base. staging: absent until it is fit to be written
    target    source: what the snapshot is held for
    base, mode, plan, replica    staging: the transfer, and the name that the replica has or gets
    digest, order    good: of the transfer; order counts the commits of a replica upward
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from blockrep.errors import VolumeError
from blockrep.model.snapshots import Snapshot
from blockrep.storage.interface import BeginRequest
from blockrep.storage.lvm.reports import LogicalVolume

__all__ = [
    "BASE",
    "MARK",
    "PENDING",
    "READY",
    "REPLICA_TAGS",
    "GoodMark",
    "Role",
    "SourceMark",
    "StagingMark",
    "good_tags",
    "lv_name",
    "plan_tag",
    "read_good",
    "read_source",
    "read_staging",
    "replica_name",
    "replica_tag",
    "role_of",
    "source_tags",
    "staging_tags",
]

MARK: Final = "blockrep"
_PREFIX: Final = "blockrep."
_PLAIN = re.compile(rb"[A-Za-z0-9_+.:/-]+")
_ESCAPED = re.compile(r"!([0-9A-F]{2})")
_MAX_PIECE = 900  # of a value: below LVM's 1,024 with the tag's name


class Role(Enum):
    """What one of our volumes is for."""

    SOURCE = "source"
    STAGING = "staging"
    GOOD = "good"
    REPLICA = "replica"

    @property
    def tag(self) -> str:
        """The tag that says so."""
        return f"{_PREFIX}role={self.value}"


_ROLES: Final = {role.tag: role for role in Role}
PENDING: Final = f"{_PREFIX}state=pending"
BASE: Final = f"{_PREFIX}state=base"
READY: Final = f"{_PREFIX}state=ready"
REPLICA_TAGS: Final = (MARK, Role.REPLICA.tag)


@dataclass(frozen=True, slots=True)
class SourceMark:
    """A snapshot of a source volume: of which, in which pool."""

    volume: LogicalVolume
    snapshot: Snapshot
    of_uuid: str
    pool_uuid: str


@dataclass(frozen=True, slots=True)
class GoodMark:
    """A good snapshot of a replica. ``order`` counts commits upward."""

    volume: LogicalVolume
    snapshot: Snapshot
    of_uuid: str
    order: int


@dataclass(frozen=True, slots=True)
class StagingMark:
    """A staging volume.

    ``of_uuid`` is the replica's, empty if it will become the replica. ``ready``: its size and
    content were fit to begin with.
    """

    volume: LogicalVolume
    lineage: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    size_bytes: int
    base_id: str
    mode: str
    plan_digest: bytes
    of_uuid: str
    replica: str
    ready: bool

    def fits(self, request: BeginRequest) -> bool:
        """Tell whether the request goes on with this very transfer."""
        return (
            self.ready
            and request.plan is not None
            and self.plan_digest == request.plan.digest
            and self.snapshot_id == request.snapshot_id
            and self.lineage == request.lineage
            and self.base_id == request.base_id
            and self.mode == request.mode
            and self.sequence == request.sequence
            and self.size_bytes == request.size_bytes
        )


def lv_name(role: Role, lineage: str, sequence: int, snapshot_id: str) -> str:
    """Return the name of a new volume of ours, for people: identity is in the tags."""
    letter = {Role.SOURCE: "s", Role.STAGING: "t", Role.GOOD: "g"}[role]
    return f"br_{letter}_{lineage[:8]}_{sequence}_{snapshot_id[:8]}"


def role_of(volume: LogicalVolume) -> Role | None:
    """Return what a volume is to us, None if it is not ours."""
    if MARK not in volume.tags:
        return None
    return next((role for tag, role in _ROLES.items() if tag in volume.tags), None)


def replica_tag(name: str) -> str:
    """Return the tag that names the replica which a staging volume becomes."""
    return _tag("replica", name)


def replica_name(volume: LogicalVolume) -> str:
    """Return the name that a new replica gets; empty for a volume that was adopted."""
    return _values(volume).get("replica", "")


def source_tags(snapshot: Snapshot, of_uuid: str, pool_uuid: str) -> list[str]:
    """Return the tags of a new snapshot of a source volume: pending."""
    common = _snapshot_tags(
        Role.SOURCE, snapshot.lineage, snapshot.id, snapshot.sequence, snapshot.created_seconds
    )
    target = _encode(snapshot.target)
    pieces = [target[at : at + _MAX_PIECE] for at in range(0, len(target), _MAX_PIECE)]
    return [
        *common,
        _tag("of", of_uuid),
        _tag("pool", pool_uuid),
        PENDING,
        *(_tag(f"target.{number}", piece) for number, piece in enumerate(pieces)),
    ]


def staging_tags(
    request: BeginRequest, of_uuid: str, pool_uuid: str, replica: str, *, ready: bool
) -> list[str]:
    """Return the tags of a new staging volume."""
    plan = [] if request.plan is None else [plan_tag(request.plan.digest)]
    return [
        *_snapshot_tags(
            Role.STAGING,
            request.lineage,
            request.snapshot_id,
            request.sequence,
            request.created_seconds,
        ),
        _tag("size", request.size_bytes),
        _tag("base", request.base_id),
        _tag("mode", request.mode),
        _tag("of", of_uuid),
        _tag("pool", pool_uuid),
        replica_tag(replica),
        *plan,
        *([READY] if ready else []),
    ]


def plan_tag(digest: bytes) -> str:
    """Return the tag that binds a staging volume to a plan."""
    return _tag("plan", digest.hex())


def good_tags(staging: StagingMark, digest: bytes, order: int) -> list[str]:
    """Return the tags of the good snapshot that a staging volume becomes."""
    return [
        *_snapshot_tags(
            Role.GOOD,
            staging.lineage,
            staging.snapshot_id,
            staging.sequence,
            staging.created_seconds,
        ),
        _tag("size", staging.size_bytes),
        _tag("of", staging.of_uuid or staging.volume.uuid),
        _tag("pool", staging.volume.pool_uuid),
        _tag("digest", digest.hex()),
        _tag("order", order),
    ]


def read_source(volume: LogicalVolume) -> SourceMark | None:
    """Return what a snapshot of a source volume says of itself, None if it is none of ours."""
    if role_of(volume) is not Role.SOURCE:
        return None
    values = _values(volume)
    pieces: list[str] = []
    while (piece := values.get(f"target.{len(pieces)}")) is not None:
        pieces.append(piece)
    values["size"] = str(volume.size_bytes)  # its own: the origin may have grown since
    snapshot = _snapshot(
        volume, values, committed=BASE in volume.tags, target=_decode("".join(pieces)), digest=""
    )
    return SourceMark(volume, snapshot, values.get("of", ""), values.get("pool", ""))


def read_good(volume: LogicalVolume) -> GoodMark | None:
    """Return what a good snapshot says of itself, None if it is none of ours."""
    if role_of(volume) is not Role.GOOD:
        return None
    values = _values(volume)
    snapshot = _snapshot(volume, values, committed=True, target="", digest=values.get("digest", ""))
    return GoodMark(volume, snapshot, values.get("of", ""), _number(volume, values, "order"))


def read_staging(volume: LogicalVolume) -> StagingMark | None:
    """Return what a staging volume says of itself, None if it is none of ours."""
    if role_of(volume) is not Role.STAGING:
        return None
    values = _values(volume)
    return StagingMark(
        volume=volume,
        lineage=_text(volume, values, "lineage"),
        snapshot_id=_text(volume, values, "id"),
        sequence=_number(volume, values, "seq"),
        created_seconds=_number(volume, values, "created"),
        size_bytes=_number(volume, values, "size"),
        base_id=values.get("base", ""),
        mode=_text(volume, values, "mode"),
        plan_digest=_digest(volume, values.get("plan", "")),
        of_uuid=values.get("of", ""),
        replica=_text(volume, values, "replica"),
        ready=READY in volume.tags,
    )


def _tag(name: str, value: str | int) -> str:
    return f"{_PREFIX}{name}={value}"


def _snapshot_tags(
    role: Role, lineage: str, snapshot_id: str, sequence: int, created_seconds: int
) -> list[str]:
    return [
        MARK,
        role.tag,
        _tag("lineage", lineage),
        _tag("id", snapshot_id),
        _tag("seq", sequence),
        _tag("created", created_seconds),
    ]


def _snapshot(
    volume: LogicalVolume, values: dict[str, str], *, committed: bool, target: str, digest: str
) -> Snapshot:
    return Snapshot(
        id=_text(volume, values, "id"),
        lineage=_text(volume, values, "lineage"),
        sequence=_number(volume, values, "seq"),
        created_seconds=_number(volume, values, "created"),
        size_bytes=_number(volume, values, "size"),
        committed=committed,
        name=volume.name,
        target=target,
        digest=digest,
    )


def _values(volume: LogicalVolume) -> dict[str, str]:
    return dict(_pairs(volume.tags))


def _pairs(tags: Collection[str]) -> Iterator[tuple[str, str]]:
    for tag in tags:
        name, separator, value = tag.removeprefix(_PREFIX).partition("=")
        if separator and tag.startswith(_PREFIX):
            yield name, value


def _text(volume: LogicalVolume, values: dict[str, str], name: str) -> str:
    if not values.get(name):
        raise _damaged(volume, name)
    return values[name]


def _number(volume: LogicalVolume, values: dict[str, str], name: str) -> int:
    text = values.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise _damaged(volume, name)
    return int(text)


def _digest(volume: LogicalVolume, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _damaged(volume, "plan") from None


def _damaged(volume: LogicalVolume, name: str) -> VolumeError:
    return VolumeError(
        f"the tag {_PREFIX}{name} is missing or damaged",
        where=volume.full_name,
        safe="nothing was changed",
        next_step="see lvs -o +lv_tags; remove the volume, or its tag blockrep",
    )


def _encode(text: str) -> str:
    """Write a text with the characters of tags."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(
        chr(byte) if _PLAIN.fullmatch(bytes([byte])) else f"!{byte:02X}" for byte in data
    )


def _decode(text: str) -> str:
    data = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1", "replace")
    return data.decode("utf-8", "surrogateescape")
