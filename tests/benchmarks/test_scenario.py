"""Tools take turns, and what arrived is compared with what was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from measure import Result
from scenario import Entry, Scenario, Tool, measure
from workspace import Workspace


def unused(_space: Workspace, _size_bytes: int) -> Scenario:
    raise AssertionError


ENTRY = Entry("name", "title", unused)


class Copying:
    """A tool that copies a file, and notes that it ran."""

    def __init__(self, name: str, folder: Path, log: list[str], *, cut: int | None = None) -> None:
        self.sent, self.arrived = folder / "sent", folder / f"arrived-{name}"
        self.tool = Tool(name, self.run, [(self.sent, self.arrived)], lambda: log.append("reset"))
        self._name, self._log, self._cut = name, log, cut

    def run(self) -> Result:
        self._log.append(self._name)
        self.arrived.write_bytes(self.sent.read_bytes()[: self._cut])
        return Result(1.0, 1.0, {"sender": 1, "receiver": 1})


def test_tools_take_turns_round_by_round(tmp_path: Path) -> None:
    log: list[str] = []
    (tmp_path / "sent").write_bytes(b"content")
    tools = [Copying(name, tmp_path, log).tool for name in ("one", "other")]
    scenario = Scenario(tools, "one", 7, change=lambda number: log.append(f"change {number}"))
    outcome = measure(ENTRY, scenario, rounds=2)
    turn = ["reset", "one", "reset", "other"]
    assert log == ["change 0", *turn, "change 1", *turn]
    assert {name: len(runs) for name, runs in outcome.results.items()} == {"one": 2, "other": 2}


def test_what_arrived_differently_ends_the_benchmark(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"content")
    tool = Copying("lossy", tmp_path, [], cut=6).tool
    with pytest.raises(SystemExit, match=r"name, lossy: .* differs"):
        measure(ENTRY, Scenario([tool], "lossy", 7), rounds=1)


def test_a_tool_that_is_not_installed_is_left_out_and_named() -> None:
    tool = Tool("absent", lambda: Result(1, 1), [], needs=("no-such-program-anywhere",))
    outcome = measure(ENTRY, Scenario([tool], "absent", 7), rounds=1)
    assert outcome.results == {}
    assert outcome.skipped == {"absent": ["no-such-program-anywhere"]}
