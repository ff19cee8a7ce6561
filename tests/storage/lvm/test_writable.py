"""A snapshot of ours that somebody made writable is his: I7, and no base or good snapshot (I2)."""

from __future__ import annotations

import logging

import pytest

from blockrep.storage.lvm.writable import is_estranged, left_alone, warn_of_estranged
from storage.lvm.builders import volume


@pytest.mark.parametrize("role", ["source", "good", "staging", "replica"])
def test_only_snapshots_are_to_be_read_only(role: str) -> None:
    tags = ("blockrep", f"blockrep.role={role}")
    assert is_estranged(volume(tags=tags)) == (role in {"source", "good"})
    assert not is_estranged(volume(tags=tags, read_only=True))
    assert not is_estranged(volume(tags=tags[1:])), "it is none of ours"


def test_each_is_warned_of_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    known: set[str] = set()
    one, other = volume(name="one", uuid="1"), volume(name="other", uuid="2")
    with caplog.at_level(logging.WARNING):
        warn_of_estranged([one], known)
        warn_of_estranged([one, other], known)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "volg/one",
        "volg/other",
    ]
    error = left_alone(one)
    for text in (caplog.text, str(error)):
        assert "lvchange --deltag blockrep volg/one" in text
    assert "lvremove volg/one" in str(error)
