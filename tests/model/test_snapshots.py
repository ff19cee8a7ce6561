"""The nouns that both hosts compare are values: equal when all they say is equal."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from blockrep.model.snapshots import Replica, Snapshot, Space, StagingInfo, VolumeInfo

GOOD = Snapshot("01" * 16, "02" * 16, 1, 1_700_000_000, 1 << 30, committed=True)


def test_what_is_not_said_is_unknown_not_zero() -> None:
    assert (GOOD.allocated_bytes, GOOD.digest, GOOD.target) == (-1, "", "")


def test_a_replica_holds_nothing_unless_told() -> None:
    replica = Replica(exists=False, owned=False, info=None, lineage="", space=Space(1, 2, 3))
    assert (replica.snapshots, replica.staging, replica.drifted) == ((), None, False)
    assert replica.align_bytes == 1


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        Space(1, 2, 3),
        VolumeInfo("memory", "identity", 1, 1),
        StagingInfo("staging", "02" * 16, "", "01" * 16, bytes(32), 0, bytes(32)),
    ],
)
def test_they_are_never_changed_in_place(value: object) -> None:
    name = next(iter(type(value).__dataclass_fields__))  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
