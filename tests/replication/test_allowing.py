"""What a volume was opened for, and what the user or the rules allow, bounds what is done to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from blockrep.errors import RefusedError
from blockrep.model.snapshots import Replica, Snapshot, Space, VolumeInfo
from blockrep.protocol.messages import Compare, Message, Open, Prune, StageRequest
from blockrep.replication.allowing import Access, OpenedVolume
from blockrep.replication.pacing import RateLimiter
from blockrep.storage.interface import TargetVolume
from support.sessions import BEGIN

STAGE = StageRequest("a" * 32, "b" * 32, 1, 0, 1 << 20, allow_shrink=False)
GOOD = Snapshot("c" * 32, "a" * 32, 1, 0, 1 << 20, committed=True)
ABSENT = Replica(exists=False, owned=False, info=None, lineage="", space=Space(1, 0, 0))
FOREIGN = replace(ABSENT, exists=True, info=VolumeInfo("memory", "x", 1 << 20, 4096))
OURS = replace(FOREIGN, owned=True, lineage="a" * 32, snapshots=(GOOD,))
#: What a server's rules allow by themselves, and what somebody who pulls without options does.
SERVER = Access(cast("TargetVolume", object()), True, False, 3, 2, 0, RateLimiter(0))
PULLING = replace(SERVER, may_replace=False, may_shrink=False)


def opened(access: Access, operation: str = "push") -> tuple[OpenedVolume, list[Any]]:
    audit: list[Any] = []
    return OpenedVolume(Open(operation, "vg/lv", ""), access, lambda *one: audit.append(one)), audit


@pytest.mark.parametrize(
    ("access", "replica", "mode", "words"),
    [
        (SERVER, ABSENT, "full", ""),
        (replace(SERVER, may_create=False), ABSENT, "full", "may not create"),
        (replace(SERVER, may_create=False), OURS, "full", ""),
        (SERVER, FOREIGN, "adopt", "may not adopt"),
        (SERVER, OURS, "adopt", ""),
        (replace(SERVER, may_adopt=True), FOREIGN, "adopt", ""),
        (PULLING, OURS, "incremental", ""),
        (PULLING, OURS, "full", "everything would be sent again"),
        (PULLING, OURS, "adopt", "may have been written there would be overwritten"),
        (PULLING, FOREIGN, "adopt", "may not adopt"),
        (replace(PULLING, may_replace=True), OURS, "full", ""),
        (replace(PULLING, may_adopt=True), OURS, "adopt", ""),
        (replace(SERVER, quota_bytes=1 << 20), OURS, "full", ""),
        (replace(SERVER, quota_bytes=(1 << 20) - 1), OURS, "full", "quota"),
    ],
)
def test_a_transfer_is_what_was_asked_for(
    access: Access, replica: Replica, mode: str, words: str
) -> None:
    volume, audit = opened(access)
    if not words:
        volume.check_transfer(replica, mode, 1 << 20, allow_shrink=False)
        assert audit == []
        return
    with pytest.raises(RefusedError, match=words):
        volume.check_transfer(replica, mode, 1 << 20, allow_shrink=False)
    ((event, fields),) = audit
    assert (event, fields["volume"], fields["operation"]) == ("refused", "vg/lv", "push")


def test_a_replica_becomes_smaller_only_if_that_was_asked_for() -> None:
    volume, _ = opened(replace(PULLING, may_adopt=True))
    with pytest.raises(RefusedError, match="may not become smaller"):
        volume.check_transfer(OURS, "adopt", 1, allow_shrink=True)
    opened(SERVER)[0].check_transfer(OURS, "adopt", 1, allow_shrink=True)


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        (BEGIN, "push"),
        (Compare("", STAGE, 4096, bytes(8)), "push"),
        (Compare("c" * 32, None, 4096, bytes(8)), "verify"),
        (Prune(2), "prune"),
    ],
)
def test_each_message_needs_what_the_volume_was_opened_for(
    message: Message, operation: str
) -> None:
    opened(SERVER, operation)[0].check_operation(message)
    for other in {"push", "verify", "prune", "list"} - {operation}:
        volume, audit = opened(SERVER, other)
        with pytest.raises(RefusedError, match=f"opened to {other}, not to {operation}"):
            volume.check_operation(message)
        assert len(audit) == 1


def test_so_many_snapshots_stay() -> None:
    volume, _ = opened(SERVER, "prune")
    volume.check_keep(2)
    with pytest.raises(RefusedError, match="at least 2"):
        volume.check_keep(1)


@pytest.mark.parametrize(
    ("replica", "change", "recorded"),
    [
        (ABSENT, {}, None),
        (OURS, {}, ("full", False)),
        (FOREIGN, {"mode": "adopt"}, ("adopt", False)),
        (OURS, {"mode": "incremental", "base_id": GOOD.id}, None),
        (
            OURS,
            {"mode": "incremental", "base_id": GOOD.id, "size_bytes": 1, "allow_shrink": True},
            ("incremental", True),
        ),
    ],
)
def test_force_is_on_record(
    replica: Replica, change: dict[str, Any], recorded: tuple[str, bool] | None
) -> None:
    volume, audit = opened(SERVER)
    volume.record_force(replica, replace(BEGIN, **change))
    if recorded is None:
        assert audit == []
        return
    ((event, fields),) = audit
    assert (event, fields["mode"], fields["shrinks"]) == ("forced", *recorded)
    assert fields["newest"] == (GOOD.id if replica is OURS else "")
