"""Where a transfer's time goes, for whoever wants to know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

__all__ = ["Phases"]


class Phases:
    """Adds up seconds by name; may be taken at any time, and starts at nothing again then."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside to ``name``, also if it fails."""
        now = asyncio.get_running_loop().time
        started = now()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + now() - started

    def take(self) -> tuple[tuple[str, float], ...]:
        """Return (name, seconds), in the order in which they first ended, and forget them."""
        taken = tuple((name, round(seconds, 6)) for name, seconds in self._seconds.items())
        self._seconds = {}
        return taken
