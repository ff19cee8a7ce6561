"""A finding carries what an operation would end with, and is compared without its fix."""

from __future__ import annotations

from blockrep.errors import NoSpaceError, StorageError
from blockrep.model.findings import Finding, Level


def test_an_error_becomes_a_finding_with_its_exit_code_and_next_step() -> None:
    error = NoSpaceError("the pool is full", where="vg/pool", next_step="lvextend vg/pool")
    found = Finding.of_error(error)
    assert found == Finding(Level.ERROR, "vg/pool", "the pool is full", "lvextend vg/pool", 6)


def test_what_an_error_does_not_say_is_empty() -> None:
    found = Finding.of_error(StorageError("lvs failed"))
    assert (found.where, found.remedy, found.fix) == ("", "", None)


def test_the_fix_does_not_tell_findings_apart() -> None:
    plain = Finding(Level.WARNING, "vg/lv", "is left")
    assert Finding(Level.WARNING, "vg/lv", "is left", fix=lambda: None) == plain
