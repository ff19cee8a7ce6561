"""Whatever breaks, whenever it does: the promises hold, and the next push goes on.

A choice of seeds; ``make soak SEEDS=FIRST:END`` runs as many as one likes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.faults import FAULTS
from simulation.network import FAULTS as NETWORK_FAULTS
from simulation.running import run_scenario, simulate
from simulation.scenario import Outcome, Scenario
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
def test_the_same_seed_is_the_same_run(tmp_path: Path, kinds: tuple[str, str]) -> None:
    outcomes: list[Outcome] = [simulate(7, tmp_path / name, kinds) for name in ("once", "again")]
    assert outcomes[0] == outcomes[1]


def test_every_fault_and_every_end_comes_up() -> None:
    """A simulator that never gets there proves nothing."""
    tally: Tally = run_seeds(range(400, 600))
    assert tally.faults.keys() >= {one.__name__ for one in FAULTS}
    assert tally.faults.keys() >= {f"link {one}" for one in NETWORK_FAULTS}
    assert tally.ends.keys() >= {
        "pushed", "crashed", "connection-lost", "storage", "no-space", "diverged", "protocol",
        "busy", "lost data found",
    }  # fmt: skip
