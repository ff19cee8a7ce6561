"""A plan is spooled unchanged, named by its digest, and refuses a delta that is out of order."""

from __future__ import annotations

import pytest

from blockrep.errors import InternalError
from blockrep.model.extents import Extent, ExtentKind, digest
from blockrep.replication.plan import SpooledPlan

MIB = 1024 * 1024


def test_a_plan_returns_the_merged_delta_as_often_as_asked() -> None:
    delta = [Extent(0, 10), Extent(10, 5), Extent(20, 5, ExtentKind.DISCARD)]
    with SpooledPlan(iter(delta), 100, chunk_bytes=16) as plan:
        merged = [Extent(0, 15), Extent(20, 5, ExtentKind.DISCARD)]
        assert list(plan) == merged
        assert list(plan) == merged
        assert plan.summary.digest == digest(merged)
        assert (plan.summary.data_bytes, plan.summary.discard_bytes, plan.new_chunks) == (15, 5, 2)


def test_done_bytes_counts_what_lies_below_the_cursor() -> None:
    with SpooledPlan(iter([Extent(0, 10), Extent(50, 10)]), 100) as plan:
        assert [plan.done_bytes(cursor) for cursor in (0, 5, 10, 50, 55, 100)] == [
            0,
            5,
            10,
            10,
            15,
            20,
        ]


def test_a_plan_beyond_the_memory_limit_is_the_same() -> None:
    delta = [Extent(index * 8192, 4096) for index in range(300_000)]
    with SpooledPlan(iter(delta), 300_000 * 8192) as plan:
        assert plan.summary.extent_count == 300_000
        assert sum(1 for _ in plan) == 300_000


@pytest.mark.parametrize("delta", [[Extent(10, 5), Extent(0, 5)], [Extent(0, 101)], [Extent(0, 0)]])
def test_a_delta_out_of_order_or_outside_is_a_defect_not_a_transfer(delta: list[Extent]) -> None:
    with pytest.raises(InternalError):
        SpooledPlan(iter(delta), 100)
