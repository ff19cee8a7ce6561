"""Keeping to a rate: a token bucket without a clock, and the coroutine that waits for it."""

from __future__ import annotations

import asyncio

__all__ = ["RateLimiter", "TokenBucket"]

_BURST_SECONDS = 0.25


class TokenBucket:
    """Spreads bytes so that at most ``bytes_per_second`` pass; time is an argument.

    What is not used within a quarter of a second is lost. 0 bytes a second: no limit.
    """

    def __init__(self, bytes_per_second: int) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._free_at = 0.0

    def take(self, count: int, now: float) -> float:
        """Take note of ``count`` bytes; return the seconds to wait before they pass."""
        if not self._seconds_per_byte:
            return 0.0
        self._free_at = max(self._free_at, now - _BURST_SECONDS) + count * self._seconds_per_byte
        return max(self._free_at - now, 0.0)


class RateLimiter:
    """A token bucket by the event loop's clock; several sessions may share one."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bucket = TokenBucket(bytes_per_second)
        self.is_limited = bytes_per_second > 0

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass."""
        wait_seconds = self._bucket.take(count, asyncio.get_running_loop().time())
        if wait_seconds:
            await asyncio.sleep(wait_seconds)
