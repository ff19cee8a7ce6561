"""A rate is kept, whoever shares it, and nobody waits where there is no limit."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.replication.pacing import RateLimiter, TokenBucket
from support.virtual_time import run_virtual


def test_a_full_bucket_lets_a_quarter_of_a_second_pass_at_once() -> None:
    bucket = TokenBucket(1000)
    assert bucket.take(250, now=100.0) == 0
    assert bucket.take(100, now=100.0) == pytest.approx(0.1)
    assert bucket.take(100, now=100.0) == pytest.approx(0.2)


def test_what_was_not_used_is_not_saved_up() -> None:
    bucket = TokenBucket(1000)
    bucket.take(1, now=100.0)
    assert bucket.take(1250, now=5000.0) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 10)), max_size=30))
def test_no_more_passes_than_the_rate_and_one_burst(taken: list[tuple[int, float]]) -> None:
    bucket, now, passed = TokenBucket(1000), 0.0, 0
    for count, pause_seconds in taken:
        now += bucket.take(count, now)
        passed += count
        assert passed <= (now + 0.25) * 1000 + 1e-3
        now += pause_seconds


def test_no_limit_never_waits() -> None:
    async def scenario() -> float:
        await RateLimiter(0).take(1 << 40)
        return asyncio.get_running_loop().time()

    assert TokenBucket(0).take(1 << 40, now=1.0) == 0
    assert run_virtual(scenario()) < 0.001


def test_those_who_share_a_limiter_share_the_rate() -> None:
    async def scenario() -> float:
        limiter = RateLimiter(1000)

        async def use() -> None:
            for _ in range(25):
                await limiter.take(100)

        await asyncio.gather(use(), use())
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) == pytest.approx(5.0, abs=0.3)
