"""Certificates that will soon stop replication are named in time; others are not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.describe import describe
from blockrep.certificates.expiry import expiry_warnings, renewal_advice
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


@pytest.mark.parametrize(
    ("roles", "expired", "advice"),
    [
        ([Role.SERVER], False, "renew it: {there}; then reload the server"),
        ([Role.SERVER], True, "renew it: {there}; then reload the server"),
        ([Role.CLIENT], False, "renew it: blockrep peer renew HOST, or {there}"),
        ([Role.CLIENT], True, "renew it: {there}"),
    ],
)
def test_only_a_client_whose_certificate_holds_can_ask_for_the_next(
    tmp_path: Path, roles: list[Role], expired: bool, advice: str
) -> None:
    create_authority(tmp_path)
    info = issue(tmp_path, "one", roles, [], days=20).info
    there = "blockrep certs renew one where the authority is, and copy it here"
    now = NOW + dt.timedelta(days=21 if expired else 19)
    assert renewal_advice(info, now) == advice.format(there=there)


def test_an_authority_is_not_renewed(tmp_path: Path) -> None:
    create_authority(tmp_path)
    assert "new authority" in renewal_advice(describe(tmp_path / "ca.pem"), NOW)
