"""A safeguard that is taken away is noticed by a checker: it is defended, and the checker bites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.running import simulate
from simulation.safeguards import SAFEGUARDS, Safeguard
from support.reports import record

# Who crashed closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_SEEDS = 400


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "safeguard", SAFEGUARDS, ids=lambda one: f"{one.remove.__name__}-{one.kinds[0]}"
)
def test_a_checker_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safeguard: Safeguard
) -> None:
    safeguard.remove(monkeypatch)
    assert any(re.search(safeguard.noticed, found) for found in findings(tmp_path, safeguard)), (
        "nobody noticed"
    )
    record("safeguards taken away", 1, 0)


def findings(folder: Path, safeguard: Safeguard) -> Iterator[str]:
    for seed in range(_SEEDS):
        try:
            simulate(seed, folder / str(seed), safeguard.kinds, safeguard.link_fault)
        except Exception as error:  # noqa: BLE001
            yield f"{type(error).__name__}: {error}"
