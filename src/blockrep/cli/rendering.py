"""Events as text: JSON objects, plain lines, the live progress line. Pure but for the writing."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from blockrep.replication import events

__all__ = [
    "JsonSink",
    "LineSink",
    "RateMeter",
    "event_as_json",
    "format_age",
    "format_bytes",
    "progress_line",
    "sink_for",
]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_RATE_WINDOW_SECONDS = 5.0
_LIVE_SECONDS = 0.2
_PLAIN_SECONDS = 10.0


def format_bytes(count: int) -> str:
    """Return a size for people: ``512 B``, ``1.5 GiB``."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def format_age(seconds: float) -> str:
    """Return an age for people: ``42 s``, ``3 min``, ``5 h``, ``12 d``."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, int(seconds / divisor))} {unit}"
    return f"{int(seconds / 86400)} d"


def event_as_json(event: events.Event) -> str:
    """Return one line: the class name in snake case as ``event``, then the event's fields."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return json.dumps({"event": name, **dataclasses.asdict(event)})


class RateMeter:
    """Bytes a second over the last five seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, total_bytes: int) -> float:
        """Take note of a total; return the rate."""
        self._samples.append((now, total_bytes))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_WINDOW_SECONDS:
            self._samples.popleft()
        first_time, first_bytes = self._samples[0]
        elapsed = now - first_time
        return (total_bytes - first_bytes) / elapsed if elapsed > 0 else 0.0


def progress_line(progress: events.Progress, rate: float, resumed_percent: int, width: int) -> str:
    """Return the live line, cut to the terminal's width."""
    total = progress.total_bytes
    percent = 100 * progress.done_bytes // total if total else 100
    parts = [
        f"{percent:3d} %",
        f"{format_bytes(progress.done_bytes)} of {format_bytes(total)}",
        f"{format_bytes(int(rate))}/s",
    ]
    if rate > 0:
        seconds = int((total - progress.done_bytes) / rate)
        parts.append(f"{seconds // 60}:{seconds % 60:02d} left")
    if resumed_percent:
        parts.append(f"resumed from {resumed_percent} %")
    return "  ".join(parts)[: max(0, width - 1)]


class JsonSink:
    """One JSON object a line, at once."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def __call__(self, event: events.Event) -> None:
        """Write an event."""
        print(event_as_json(event), file=self._output, flush=True)

    def finish(self) -> None:
        """Nothing is left open."""


class LineSink:
    """Lines for people; on a terminal the last one is live.

    Args:
        output: where lines go.
        label: what every line is about.
        live: the output is a terminal.
        profile: tell where the time of a transfer went, too.
        now: a clock, seconds.
        width: of the terminal, characters.
    """

    def __init__(
        self,
        output: TextIO,
        label: str,
        *,
        live: bool,
        profile: bool = False,
        now: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        self._output = output
        self._label = label
        self._live = live
        self._profile = profile
        self._now = now
        self._width = width
        self._meter = RateMeter()
        self._next_progress = 0.0 if live else now() + _PLAIN_SECONDS
        self._resumed_percent = 0
        self._line_is_open = False

    def __call__(self, event: events.Event) -> None:
        """Show an event."""
        if isinstance(event, events.Progress):
            self._show_progress(event)
        elif text := self._text(event):
            self.finish()
            print(f"{self._label}: {text}", file=self._output, flush=True)

    def finish(self) -> None:
        """Clear the live line."""
        if self._line_is_open:
            print("\r\x1b[K", end="", file=self._output, flush=True)
            self._line_is_open = False

    def _show_progress(self, progress: events.Progress) -> None:
        now = self._now()
        rate = self._meter.add(now, progress.done_bytes)
        if now < self._next_progress or not progress.total_bytes:
            return
        self._next_progress = now + (_LIVE_SECONDS if self._live else _PLAIN_SECONDS)
        line = progress_line(
            progress, rate, self._resumed_percent, self._width() if self._live else 200
        )
        if self._live:
            print(f"\r{line}\x1b[K", end="", file=self._output, flush=True)
            self._line_is_open = True
        else:
            print(f"{self._label}: {line}", file=self._output, flush=True)

    def _text(self, event: events.Event) -> str:
        if isinstance(event, events.Decided):
            return f"{event.mode}: {event.reason}"
        if isinstance(event, events.Planned):
            return (
                f"to send {format_bytes(event.data_bytes)}, to discard "
                f"{format_bytes(event.discard_bytes)}, {event.extent_count} "
                f"{'extent' if event.extent_count == 1 else 'extents'}"
            )
        if isinstance(event, events.Resumed):
            self._resumed_percent = 100 * event.done_bytes // max(1, event.total_bytes)
            return f"resumed: {format_bytes(event.done_bytes)} are durable there already"
        if isinstance(event, events.Committed):
            return (
                f"committed as {event.name} (id {event.snapshot_id[:8]}), "
                f"{format_bytes(event.wire_bytes)} sent"
            )
        if isinstance(event, events.Retrying):
            return (
                f"{event.reason}; trying again in {event.wait_seconds:g} s "
                f"(attempt {event.attempt})"
            )
        if isinstance(event, events.Spent):
            return _spent_text(event) if self._profile else ""
        if isinstance(event, events.Verified) and not event.different_bytes:
            return f"verified: {format_bytes(event.compared_bytes)} are equal"
        return ""


def _spent_text(event: events.Spent) -> str:
    """Return a line of a profile."""
    phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in event.phases)
    total = sum(seconds for _, seconds in event.phases)
    text = f"{total:.3f} s: {phases}"
    if event.commands:
        here = ", ".join(f"{name} {count} x: {took:.3f}" for name, count, took in event.commands)
        text += (
            f"; commands here: {here}; metadata snapshot held {event.metadata_snapshot_seconds:.3f}"
        )
    if event.target_command_count:
        text += f"; there: {event.target_command_count} x: {event.target_command_seconds:.3f}"
    return text


class _QuietSink:
    def __call__(self, event: events.Event) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Nothing is left open."""


def sink_for(
    label: str, *, as_json: bool, quiet: bool, profile: bool = False
) -> JsonSink | LineSink | _QuietSink:
    """Return what shows the events of a command: JSON goes to stdout, lines to stderr."""
    if as_json:
        return JsonSink(sys.stdout)
    if quiet:
        return _QuietSink()
    return LineSink(sys.stderr, label, live=sys.stderr.isatty(), profile=profile)
