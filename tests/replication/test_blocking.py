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


async def test_cancelled_again_it_still_waits_for_the_call() -> None:
    """A second Ctrl-C must not let anybody close what a thread writes to."""
    started, proceed = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        proceed.wait(30)

    with ThreadBlocking(1) as blocking:
        waiting = asyncio.create_task(blocking.run(work))
        await asyncio.to_thread(started.wait, 30)
        for _ in range(3):
            waiting.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not waiting.done()
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_what_is_opened_while_we_are_cancelled_is_closed() -> None:
    """A device that stays open makes every later push find the replica in use."""
    started, proceed = threading.Event(), threading.Event()
    closed: list[bool] = []

    class Reader(BytesReader):
        def __exit__(self, *exc: object) -> None:
            closed.append(True)

    def open_slowly() -> Reader:
        started.set()
        proceed.wait(30)
        return Reader(b"x")

    async def use(blocking: ThreadBlocking) -> None:
        async with opened(blocking, open_slowly):
            raise AssertionError

    with ThreadBlocking(1) as blocking:
        using = asyncio.create_task(use(blocking))
        await asyncio.to_thread(started.wait, 30)
        using.cancel()
        await asyncio.sleep(0)
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await using
    assert closed == [True]


async def test_a_reader_is_closed_whatever_happens() -> None:
    closed: list[bool] = []

    class Reader(BytesReader):
        def __exit__(self, *exc: object) -> None:
            closed.append(True)

    with ThreadBlocking(1) as blocking, pytest.raises(RuntimeError):
        async with opened(blocking, lambda: Reader(b"x")):
            raise RuntimeError
    assert closed == [True]
