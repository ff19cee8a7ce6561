"""Storage calls run off the event loop, and end before what they work on is closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from blockrep.replication.blocking import ThreadBlocking, opened
from support.readers import BytesReader


async def test_calls_run_in_another_thread_and_return_their_result() -> None:
    with ThreadBlocking(1) as blocking:
        assert await blocking.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await blocking.run(divmod, 1, 0)


async def test_a_cancelled_wait_lasts_until_the_call_has_ended() -> None:
    started, proceed = threading.Event(), threading.Event()
    ended: list[str] = []

    def work() -> None:
        started.set()
        proceed.wait(30)
        ended.append("work")

    with ThreadBlocking(1) as blocking:
        waiting = asyncio.create_task(blocking.run(work))
        await asyncio.to_thread(started.wait, 30)
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended == ["work"]


async def test_a_reader_is_closed_whatever_happens() -> None:
    closed: list[bool] = []

    class Reader(BytesReader):
        def __exit__(self, *exc: object) -> None:
            closed.append(True)

    with ThreadBlocking(1) as blocking, pytest.raises(RuntimeError):
        async with opened(blocking, lambda: Reader(b"x")):
            raise RuntimeError
    assert closed == [True]
