"""What a person sees fits the terminal and is true; what a program reads is one object a line."""

from __future__ import annotations

import io
import json

import pytest

from blockrep.cli.rendering import (
    JsonSink,
    LineSink,
    RateMeter,
    event_as_json,
    format_age,
    format_bytes,
    progress_line,
    sink_for,
)
from blockrep.replication import events

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (42, "42 s"), (180, "3 min"), (5 * 3600, "5 h"), (12 * 86400, "12 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_rates_are_of_the_last_five_seconds() -> None:
    meter = RateMeter()
    assert meter.add(0, 0) == 0
    assert meter.add(1, 100) == 100
    for second in range(2, 20):
        rate = meter.add(second, 100 + 10 * (second - 1))
    assert rate == pytest.approx(10)


def test_the_progress_line_says_how_much_how_fast_and_how_long() -> None:
    progress = events.Progress(30 * MIB, 20 * MIB, 120 * MIB, 30 * MIB)
    line = progress_line(progress, 10 * MIB, 15, 200)
    assert line == " 25 %  30.0 MiB of 120.0 MiB  10.0 MiB/s  0:09 left  resumed from 15 %"
    assert len(progress_line(progress, 10 * MIB, 15, 40)) == 39


def test_a_terminal_gets_one_live_line_that_is_cleared() -> None:
    output, clock = io.StringIO(), Clock()
    sink = LineSink(output, "vg/lv", live=True, now=clock, width=lambda: 80)
    sink(events.Progress(1, 0, 100, 1))
    clock.now = 0.1
    sink(events.Progress(2, 0, 100, 2))
    clock.now = 0.3
    sink(events.Progress(3, 0, 100, 3))
    sink.finish()
    text = output.getvalue()
    assert text.count("\r") == 3, "two updates of three, and the clearing"
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_a_pipe_gets_plain_lines_every_ten_seconds() -> None:
    output, clock = io.StringIO(), Clock()
    sink = LineSink(output, "vg/lv", live=False, now=clock)
    for second in range(25):
        clock.now = second
        sink(events.Progress(second, 0, 100, second))
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("vg/lv: ") and "\x1b" not in line for line in lines)


def test_events_are_told_in_a_line_each() -> None:
    output = io.StringIO()
    sink = LineSink(output, "vg/lv", live=False)
    sink(events.Connected("replica:8733", "origin"))
    sink(events.Decided("full", "", "the replica does not exist yet"))
    sink(events.Planned(3, MIB, 0, 16, 65536))
    sink(events.Resumed(MIB, MIB, 2 * MIB))
    sink(events.Committed("ab" * 16, "br_g", "cd", MIB, 0))
    sink(events.Retrying(2, 0.8, "replica:8733: the connection broke"))
    sink(events.Verified("ab" * 16, MIB, 0, ()))
    sink(events.Verified("ab" * 16, MIB, 1, ((0, 1),)))
    assert output.getvalue().splitlines() == [
        "vg/lv: full: the replica does not exist yet",
        "vg/lv: to send 1.0 MiB, to discard 0 B, 3 extents",
        "vg/lv: resumed: 1.0 MiB are durable there already",
        "vg/lv: committed as br_g (id abababab), 1.0 MiB sent",
        "vg/lv: replica:8733: the connection broke; trying again in 0.8 s (attempt 2)",
        "vg/lv: verified: 1.0 MiB are equal",
    ]


def test_json_names_are_stable_and_carry_their_units() -> None:
    assert json.loads(event_as_json(events.SnapshotTaken("id", "name"))) == {
        "event": "snapshot_taken",
        "snapshot_id": "id",
        "name": "name",
    }
    output = io.StringIO()
    sink = JsonSink(output)
    sink(events.Progress(1, 2, 3, 4))
    sink.finish()
    assert json.loads(output.getvalue())["durable_bytes"] == 2


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sink = sink_for("vg/lv", as_json=False, quiet=True)
    sink(events.Decided("full", "", "x"))
    sink.finish()
    assert capsys.readouterr() == ("", "")
    assert isinstance(sink_for("vg/lv", as_json=True, quiet=False), JsonSink)
    assert isinstance(sink_for("vg/lv", as_json=False, quiet=False), LineSink)
