"""Whether compressing pays, found by trying it. Pure: time is an argument.

It pays where the link, or the rate that the user set, holds the sender up, and the content shrinks.
Whether it does, no flag and no formula knows: the link's rate, the processor and the content all
change during one transfer. So the choice compares what was reached without and with it.
"""

from __future__ import annotations

__all__ = ["CompressionChoice"]

_INTERVAL_SECONDS = 0.25
#: The link's rate shows with few frames; what compressing brings depends on what is in them.
_PLAIN_FRAMES = 2
_PACKED_FRAMES = 4
#: zstd level 1 takes little more than this of text on one core (docs/performance.md): where a link
#: is as fast, or what looks like a slow one is a busy processor, there is nothing to win.
_FAST_LINK_BYTES_PER_SECOND = 250_000_000
_GAIN = 1.1
_RETRIAL_SECONDS = 60.0
_FIRST_REST_SECONDS = 15.0
_LONGEST_REST_SECONDS = 600.0


class CompressionChoice:
    """Decides for each batch of frames; told of each frame that was sent.

    Args:
        now: seconds, of the clock that :meth:`note_sent` is told.
    """

    def __init__(self, now: float) -> None:
        self.wanted = False
        self._plain_rate = 0.0
        self._rest_seconds = _FIRST_REST_SECONDS
        self._rest_until = now
        self._settled_at: float | None = None
        self._clear(now)

    def _clear(self, now: float) -> None:
        self._since = now
        self._frames = self._content_bytes = 0
        self._held_up_seconds = 0.0

    def note_sent(self, content_bytes: int, held_up_seconds: float, now: float) -> None:
        """Take note of a frame, which was compressed if that was ``wanted``.

        Args:
            content_bytes: of it, before compression.
            held_up_seconds: how long it waited for the link or the rate limit.
            now: when it was gone.
        """
        self._frames += 1
        self._content_bytes += content_bytes
        self._held_up_seconds += held_up_seconds
        elapsed = now - self._since
        least_frames = _PACKED_FRAMES if self.wanted else _PLAIN_FRAMES
        if elapsed < _INTERVAL_SECONDS or self._frames < least_frames:
            return
        rate = self._content_bytes / elapsed
        held_up = self._held_up_seconds * 2 > elapsed
        if self.wanted:
            self._judge(rate, now)
        else:
            self._consider(rate, now, held_up=held_up)
        self._clear(now)

    def _consider(self, rate: float, now: float, *, held_up: bool) -> None:
        """Try it, if the link is what holds the sender up, the second time in a row."""
        slow = held_up and rate < _FAST_LINK_BYTES_PER_SECOND
        if slow and self._plain_rate and now >= self._rest_until:
            self._plain_rate = rate
            self.wanted = True
            self._settled_at = None
        else:
            # The first interval goes fast: the kernel's buffers were empty.
            self._plain_rate = rate if slow else 0.0

    def _judge(self, rate: float, now: float) -> None:
        if self._settled_at is None:
            if rate < self._plain_rate * _GAIN:
                self.wanted = False
                self._rest_until = now + self._rest_seconds
                self._rest_seconds = min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)
            else:
                self._settled_at = now
                self._rest_seconds = _FIRST_REST_SECONDS
        elif now - self._settled_at > _RETRIAL_SECONDS:
            self.wanted = False
            self._plain_rate = 0.0
