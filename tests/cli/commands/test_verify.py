"""A difference is an error with its own exit code, and names where (I2)."""

from __future__ import annotations

import argparse

import pytest

from blockrep.cli.commands.verify import verdict
from blockrep.errors import VerificationFailedError
from blockrep.model.extents import Extent
from blockrep.model.snapshots import Snapshot
from blockrep.replication.push import Verification

SNAPSHOT = Snapshot("1" * 32, "a" * 32, 4, 1000, 1 << 30, committed=True)
OPTIONS = argparse.Namespace(json=False, target="replica:vg/lv")


def test_equal_is_success() -> None:
    assert verdict(Verification(SNAPSHOT, 1 << 30, (), 0, 0), OPTIONS) == 0


def test_different_extents_are_named_up_to_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    different = tuple(Extent(index * 8192, 4096) for index in range(25))
    with pytest.raises(VerificationFailedError, match="102400 bytes differ in 25 extents"):
        verdict(Verification(SNAPSHOT, 1 << 30, different, 25, 25 * 4096), OPTIONS)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "differs: offset 0, length 4096"
    assert lines[-1] == "differs: 5 more extents"
