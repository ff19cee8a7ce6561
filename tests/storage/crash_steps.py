"""Counts the steps of a process and stops it at one of them; after that, nothing runs any more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

from storage.volumes import CrashError


class CrashSteps:
    """A step is a call of :meth:`step`, or of one of these functions of :mod:`os`."""

    def __init__(self, functions: Sequence[str]) -> None:
        self._functions = functions
        self._left = -1
        self._crashed = False

    @contextlib.contextmanager
    def crash_at(self, step: int) -> Iterator[None]:
        """Raise CrashError instead of the step with that number (from 1), and of all after it."""
        self._left = step
        with contextlib.ExitStack() as stack:
            for name in self._functions:
                stack.enter_context(mock.patch.object(os, name, self._stepping(name)))
            try:
                yield
            finally:
                self._left = -1
                self._crashed = False

    def step(self, name: str) -> None:
        if self._crashed:
            raise CrashError(f"{name}, after the crash")
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self._crashed = True
                raise CrashError(name)

    def _stepping(self, name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            self.step(name)
            return real(*arguments, **options)

        return call
