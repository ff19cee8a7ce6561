"""A crash of either host at every await and between any two effects of a push."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from simulation.hosts import SimulatedHost
from simulation.running import run_scenario
from simulation.scenario import Scenario
from support.reports import record

# Who crashed closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("keeps_power", [False, True], ids=["power-cut", "kill"])
@pytest.mark.parametrize("name", ["origin", "replica"])
@pytest.mark.parametrize("kind", ["memory", "lvm"])
def test_a_crash_at_every_step(tmp_path: Path, kind: str, name: str, keeps_power: bool) -> None:
    steps = next(
        step
        for step in itertools.count(1)
        if not crashes(tmp_path / str(step), kind, name, step, keeps_power)
    )
    assert steps > 30
    record("crash points (simulated)", steps - 1, 0, f"{kind}, {name}")


def crashes(folder: Path, kind: str, name: str, step: int, keeps_power: bool) -> bool:
    """Crash at a step; False: the push had ended before."""
    scenario = Scenario(4, folder, (kind, kind))

    def host(scenario: Scenario) -> SimulatedHost:
        return scenario.origin if name == "origin" else scenario.replica

    return run_scenario(
        scenario, lambda one: one.crash_at(host(one), step, keeps_power=keeps_power)
    )
