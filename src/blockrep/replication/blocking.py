"""Where blocking storage calls run, so that the event loop stays free for heartbeats.

The drivers know only :class:`Blocking`. A simulator gives them one that runs inline under virtual
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, Protocol, Self, TypeVar

from blockrep.storage.interface import SnapshotReader

__all__ = ["Blocking", "ThreadBlocking", "held", "opened"]

P = ParamSpec("P")
T = TypeVar("T")


class Blocking(Protocol):
    """Runs blocking calls."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(*args, **kwargs)``.

        Cancelled, it still waits for the call to end, then raises CancelledError.
        """


class ThreadBlocking:
    """Runs calls in a pool of threads."""

    def __init__(self, max_threads: int = 8) -> None:
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix="blockrep-storage")

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait for running calls and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See :class:`Blocking`."""
        call = functools.partial(function, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The call goes on in its thread; whoever cancelled us, once or again, may close what it
            # works on.
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise


@contextlib.asynccontextmanager
async def held(
    blocking: Blocking, make: Callable[[], T], release: Callable[[T], None]
) -> AsyncIterator[T]:
    """Yield what a storage call makes, and release it whatever happens.

    Also if the call ends after we were cancelled: what it made is nobody else's.
    """
    made: list[T] = []
    try:
        await blocking.run(lambda: made.append(make()))
        yield made[0]
    finally:
        for one in made:
            await blocking.run(release, one)


def opened(
    blocking: Blocking, open_reader: Callable[[], SnapshotReader]
) -> AbstractAsyncContextManager[SnapshotReader]:
    """Open a snapshot's reader, and close it whatever happens."""
    return held(
        blocking,
        lambda: open_reader().__enter__(),
        lambda reader: reader.__exit__(None, None, None),
    )
