"""Certificates that will soon stop replication are named in time; others are not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.expiry import expiry_warnings
from blockrep.certificates.naming import Role

NOW = dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    ("days", "words"),
    [(0, None), (5, None), (8, "expires in 11 days"), (21, "has expired")],
)
def test_warned_of_from_14_days_on(tmp_path: Path, days: int, words: str | None) -> None:
    directory = tmp_path / "certs"
    create_authority(directory)
    issue(directory, "replica", [Role.SERVER], [], days=20, now=NOW)
    paths = [directory / "ca.pem", directory / "replica.pem"]
    warnings = expiry_warnings(paths, NOW + dt.timedelta(days=days))
    if words is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert words in warning
        assert str(directory / "replica.pem") in warning


def test_what_cannot_be_read_is_for_others_to_tell(tmp_path: Path) -> None:
    assert expiry_warnings([tmp_path / "none.pem"], NOW) == []
