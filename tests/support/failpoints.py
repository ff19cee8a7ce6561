"""Named points in sender and receiver at which a real process is killed, or gets an error.

The product has no switch for it: a point is one of its methods, wrapped by the program that the
tests start in the place of ``blockrep`` (:func:`armed`).
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrep.errors import StorageError

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Point:
    """One place in the course of a push.

    Attributes:
        name: for people, and of the test.
        end: ``client`` or ``server``.
        where: ``module:Class.method`` or ``module:function`` below ``blockrep``.
        after: the method has done its work; else it has not begun.
    """

    name: str
    end: str
    where: str
    after: bool


def both(end: str, what: str, where: str) -> tuple[Point, Point]:
    """Return the points before and after a method."""
    return (
        Point(f"{end} before {what}", end, where, after=False),
        Point(f"{end} after {what}", end, where, after=True),
    )


def program(package: str, prelude: str = "") -> str:
    """Return Python code that is ``blockrep`` (``cli``) or ``blockrep-server`` (``server``)."""
    return f"import sys; {prelude}from blockrep.{package}.main import main; sys.exit(main())"


def armed(point: Point, occurrence: int, action: str, marker: Path, tests: Path = TESTS) -> str:
    """Return the prelude of a program: at that occurrence it does it, and marks it.

    ``action``: ``kill`` or ``error``. ``tests``: where the folder of this module lies there.
    """
    arguments = (point.where, point.after, occurrence, action, str(marker))
    here = f"sys.path.insert(0, {str(tests)!r})"
    return f"{here}; from support.failpoints import arm; arm{arguments!r}; "


def arm(where: str, after: bool, occurrence: int, action: str, marker: str) -> None:
    """Wrap the method of a point."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(f"blockrep.{module}")
    for one in owners:
        owner = getattr(owner, one)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        now = calls == occurrence
        if now and not after:
            _act(action, marker)
        result = original(*args, **kwargs)
        if now and after:
            if hasattr(result, "close"):
                result.close()  # a method that fails leaves nothing open
            _act(action, marker)
        return result

    setattr(owner, name, wrapped)


def _act(action: str, marker: str) -> None:
    Path(marker).touch()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise StorageError(f"injected: {os.strerror(errno.EIO)}", where="here")
