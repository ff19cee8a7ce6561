"""An event loop whose clock jumps to the next timer when nothing else is left to do.

For coroutines over the memory transport and inline storage calls: no sockets, no threads.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LIMIT_SECONDS = 100_000.0
#: What is cancelled at the limit gets this time to end.
_GRACE_SECONDS = 1000.0
#: What each turn of the loop takes. asyncio runs timers up to its clock's resolution early: two
#: tasks that look at a deadline that is not quite reached would wait for each other for ever.
_TURN_SECONDS = 1e-6


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: tells the loop's clock to jump instead."""

    now = 0.0
    limit = _LIMIT_SECONDS

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.now > self.limit:
            self.limit = self.now + _GRACE_SECONDS
            msg = "nothing is left that could ever happen"
            raise RuntimeError(msg)
        self.now += timeout + _TURN_SECONDS
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with its own clock, seconds since its start."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


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
