"""An event loop whose clock jumps to the next timer when nothing else is left to do.

For coroutines over the memory transport and inline storage calls: no sockets, no threads.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LIMIT_SECONDS = 100_000.0
#: What is cancelled at the limit gets this time to end.
_GRACE_SECONDS = 1000.0
#: What each turn of the loop takes. Two tasks that look at a deadline that is not quite reached
#: would wait for each other for ever.
_TURN_SECONDS = 1e-6


class _Call(asyncio.TimerHandle):
    """What is to be called. Unlike asyncio's, it knows no loop and nothing for debugging."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float = 0.0,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._when = when

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()


def _nothing() -> None:
    """Be called in the place of what was cancelled."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """A loop with its own clock, seconds since its start.

    Its turns are asyncio's: what is ready when a turn begins, in that order. Timers that are due
    at the same time run in the order in which they were set. A simulated run takes thousands of
    turns, so that one must cost little: there is nothing to poll, and no other thread to hear.
    """

    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._limit_seconds = _LIMIT_SECONDS
        self._calls: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        call = _Call(callback, args, context)
        self._calls.append(call)
        return call

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        call = _Call(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._numbers), call))
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run turns until the loop is told to stop."""
        calls, timers = self._calls, self._timers
        take = calls.popleft
        while not self._stopping:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            wait_seconds = 0.0
            if not (calls or timers) or self._now > self._limit_seconds:
                self._limit_seconds = self._now + _GRACE_SECONDS
                what = "it does not end" if calls or timers else "nothing could ever happen"
                msg = f"after {self._now:.0f} seconds: {what}"
                raise RuntimeError(msg)
            if not calls:
                wait_seconds = max(0.0, timers[0][0] - self._now)
            self._now += wait_seconds + _TURN_SECONDS
            while timers and timers[0][0] < self._now:
                calls.append(heapq.heappop(timers)[2])
            for _ in range(len(calls)):
                call = take()
                try:
                    call._context.run(call._callback, *call._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio's own loop
                    self.call_exception_handler(
                        {"message": "a callback failed", "exception": error}
                    )


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end under virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a coroutine function a test that runs under virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


class InlineBlocking:
    """Runs storage calls at once, on the loop."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return function(*args, **kwargs)
