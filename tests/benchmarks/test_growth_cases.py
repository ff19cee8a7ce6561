"""The pools of growth.py are what they are called, and blockrep's own code reads them so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from blockrep.storage.lvm.group import GroupState
from blockrep.storage.lvm.recovery import next_step, view_target
from blockrep.storage.lvm.reports import parse_volumes
from blockrep.storage.lvm.tags import read_source
from data import GIB
from growth_cases import ORIGIN, REPLICA, Case, by_changes, by_snapshots, by_volume
from thin_pool import CHUNK_BYTES, FilePool, Mapping

CASES = [by_volume(GIB), by_volume(16 * 1024 * GIB), by_changes(1000), by_snapshots(10)]


def mappings_of(case: Case) -> tuple[list[Mapping], list[Mapping]]:
    base, new, *_ = (list(device.mappings) for device in case.devices())
    return base, new


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_what_changed_are_lone_chunks_within_the_volume_and_the_pool(case: Case) -> None:
    base, new = mappings_of(case)
    changed = [one for one, other in zip(new, base, strict=True) if one != other]
    assert len(changed) == case.changed
    assert all(second[0] - first[0] > 1 for first, second in pairwise(changed))
    assert (new[-1][0] + 1) * CHUNK_BYTES <= case.size_bytes
    assert max(data for _, data, _ in base + new) < case.pool_chunks
    assert len({data for _, data, _ in new}) == case.mapped


def test_volumes_of_all_sizes_have_the_same_mapped_and_changed() -> None:
    small, large = by_volume(GIB), by_volume(16 * 1024 * GIB)
    assert (small.mapped, small.changed) == (large.mapped, large.changed)


def state_of(case: Case, volumes: str) -> GroupState:
    pool = FilePool(Path("unused"), getattr(case, volumes)(), case.pool_chunks)
    return GroupState(tuple(parse_volumes(pool.run(["lvs"]).stdout)))


def test_the_source_has_its_snapshots_the_new_one_pending() -> None:
    state = state_of(by_snapshots(10), "source_volumes")
    marks = [mark for one in state.volumes if (mark := read_source(one)) is not None]
    origin = state.find(ORIGIN)
    assert origin is not None
    assert {mark.of_uuid for mark in marks} == {origin.uuid}
    assert [mark.snapshot.committed for mark in marks] == [True] * 10 + [False]
    assert [mark.volume.thin_id for mark in marks][-2:] == [1, 2]


def test_the_replica_has_its_good_snapshots_and_needs_no_recovery() -> None:
    view = view_target(state_of(by_snapshots(10), "target_volumes"), REPLICA)
    assert view.owned
    assert len(view.goods) == 10
    assert next_step(view) is None
    assert view.replica is not None
    assert view.newest is not None
    assert view.newest.volume.thin_id == view.replica.thin_id


def test_the_metadata_snapshot_is_held_while_it_is_reserved() -> None:
    pool = FilePool(Path("unused"), [], 100)
    status = ["dmsetup", "status", "--noflush", "bench-pool-tpool"]
    assert pool.run(status).stdout.split()[6] == b"-"
    pool.run(["dmsetup", "message", "bench-pool-tpool", "0", "reserve_metadata_snap"])
    assert pool.run(status).stdout.split()[6] == b"7"
    pool.run(["dmsetup", "message", "bench-pool-tpool", "0", "release_metadata_snap"])
    assert pool.run(status).stdout.split()[6] == b"-"
