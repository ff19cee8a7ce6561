"""Whatever breaks, whenever it does: the promises hold, and the next push goes on.

A choice of seeds; ``make soak SEEDS=FIRST:END`` runs as many as one likes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeGuard

import pytest

from simulation.faults import FAULTS
from simulation.hosts import SimulatedHost
from simulation.network import FAULTS as NETWORK_FAULTS
from simulation.network import Link
from simulation.running import run_scenario, simulate
from simulation.scenario import Scenario
from simulation.soak import Tally, run_seeds

# Who crashed closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_GROUP = 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 400, _GROUP))
def test_the_promises_hold(first: int) -> None:
    tally = run_seeds(range(first, first + _GROUP))
    assert not tally.failures
    assert tally.ends["pushed"] >= _GROUP
    assert tally.looks > tally.pushes


@pytest.mark.timeout(300)
def test_a_push_that_retries_ends_well_by_itself(tmp_path: Path) -> None:
    """I4, over lines that break at any moment, without anybody who would start it again."""
    attempts = 0
    for seed in range(100):
        scenario = Scenario(seed, tmp_path / str(seed))
        attempts += run_scenario(scenario, Scenario.over_bad_lines).pushes
    assert attempts > 500


@pytest.mark.parametrize("kinds", [("memory", "memory"), ("lvm", "lvm")], ids="-".join)
def test_the_same_seed_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]
) -> None:
    """At every step, and on the wire."""
    said = overheard(monkeypatch)
    runs: list[list[object]] = []
    for name in ("once", "again"):
        said.clear()
        outcomes = [simulate(seed, tmp_path / f"{name}{seed}", kinds) for seed in range(7, 12)]
        runs.append([*outcomes, *said])
    assert runs[0] == runs[1]
    assert len(said) > 500


def test_what_is_on_the_wire_does_not_depend_on_the_time_of_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is busy says since when."""
    said = overheard(monkeypatch)
    for seed in range(600):
        simulate(seed, tmp_path / str(seed), ("memory", "memory"))
    times = re.findall(rb"since (\d{4}-\d\d-\d\d)", b"".join(filter(is_bytes, said)))
    assert b"2023-11-14" in times
    assert all(one.startswith((b"2021", b"2023", b"2026")) for one in times)


def overheard(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the list of every step and every send, which grows."""
    said: list[object] = []
    step, carry = SimulatedHost.step, Link.carry

    def heard_step(self: SimulatedHost, name: str = "") -> None:
        said.append((self.name, name, self.now_seconds()))
        step(self, name)

    def heard_carry(self: Link, data: bytes, serves: bool) -> bytes:
        said.append(data)
        return carry(self, data, serves)

    monkeypatch.setattr(SimulatedHost, "step", heard_step)
    monkeypatch.setattr(Link, "carry", heard_carry)
    return said


def is_bytes(one: object) -> TypeGuard[bytes]:
    return isinstance(one, bytes)


def test_every_fault_and_every_end_comes_up() -> None:
    """A simulator that never gets there proves nothing."""
    tally: Tally = run_seeds(range(1000, 1400))
    assert tally.faults.keys() >= {one.__name__ for one in FAULTS}
    assert tally.faults.keys() >= {f"link {one}" for one in NETWORK_FAULTS}
    assert tally.ends.keys() >= {
        "pushed", "crashed", "connection-lost", "storage", "no-space", "diverged", "protocol",
        "busy", "spoiled data found", "lost data found", "misdirected data found",
    }  # fmt: skip
