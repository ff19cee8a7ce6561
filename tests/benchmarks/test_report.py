"""Medians, spreads and ratios are what they are called."""

from __future__ import annotations

import json

import report
from data import GIB
from measure import Result
from report import Spread
from scenario import Outcome


def outcome() -> Outcome:
    """Two tools, three rounds; in the second one the machine was slow."""
    found = Outcome("title", "peer", 2 * GIB)
    for name, walls in {"blockrep": (2.0, 9.0, 3.0), "peer": (1.0, 6.0, 2.0)}.items():
        found.results[name] = [
            Result(wall, 2 * wall, {"sender": 2048, "receiver": int(wall * 1024)}) for wall in walls
        ]
    return found


def test_a_spread_is_the_median_and_the_extremes() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4, 1, 2, 3]) == Spread(2.5, 1, 4)


def test_ratios_are_taken_round_by_round() -> None:
    """Not of the medians, which would be of different rounds."""
    ours, peer = report.rows_of(outcome())
    assert ours.ratio == Spread(1.5, 1.5, 2.0)
    assert peer.ratio == Spread(1, 1, 1)
    assert ours.wall == Spread(3, 2, 9)


def test_processor_time_is_per_gib_and_memory_the_peak_of_each_end() -> None:
    ours, _ = report.rows_of(outcome())
    assert ours.cpu_per_gib == Spread(3, 2, 9)
    assert ours.peak_mib == (2, 9)


def test_without_the_reference_there_are_no_ratios() -> None:
    found = outcome()
    del found.results["peer"]
    found.skipped["peer"] = ["socat"]
    (row,) = report.rows_of(found)
    assert row.ratio is None
    assert "peer: skipped, not installed: socat" in report.table(found)


def test_the_table_lines_up() -> None:
    lines = report.table(outcome()).splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
    assert report.aligned([("a", "bc"), ("def", "g")]) == ["  a    bc", "  def   g"]


def test_the_json_has_every_run() -> None:
    figures = json.loads(json.dumps(report.as_json(outcome())))
    ours = figures["tools"]["blockrep"]
    assert [one["wall_seconds"] for one in ours["runs"]] == [2, 9, 3]
    assert ours["ratio"] == {"median": 1.5, "min": 1.5, "max": 2.0}
    assert ours["peak_mib"] == {"sender": 2, "receiver": 9}
