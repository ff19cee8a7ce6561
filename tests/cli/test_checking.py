"""Folders, certificates, the clock: each problem with its remedy and a push's exit code."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.cli.checking import check_certificates, check_clock, check_directories
from blockrep.config.settings import Directories, Settings, read_settings
from blockrep.model.findings import Finding, Level

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    directories = Directories(tmp_path / "etc", tmp_path / "state", tmp_path / "run")
    return read_settings({}, tmp_path / "config.toml", directories)


def with_certificates(settings: Settings) -> Path:
    folder = settings.tls.directory
    folder.parent.mkdir()
    create_authority(folder)
    issue(folder, "origin", [Role.CLIENT])
    return folder


def levels(found: list[Finding]) -> set[Level]:
    return {one.level for one in found}


def test_directories_need_not_be_there_yet(settings: Settings) -> None:
    assert levels(list(check_directories(settings))) == {Level.OK}


def test_directories_that_others_may_write_to_are_an_error(settings: Settings) -> None:
    for path in (settings.storage.state_directory, settings.storage.runtime_directory):
        path.mkdir()
        path.chmod(0o770)
    found = list(check_directories(settings))
    assert levels(found) == {Level.ERROR}
    assert found[0].remedy == f"chmod go-w {settings.storage.state_directory}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directories_that_we_may_not_write_to_are_an_error(settings: Settings) -> None:
    settings.storage.state_directory.parent.chmod(0o500)
    assert {one.exit_code for one in check_directories(settings)} == {9}


def test_without_certificates_there_is_ssh(settings: Settings) -> None:
    (finding,) = check_certificates(settings, "origin", NOW)
    assert (finding.level, "ssh:// targets only" in finding.what) == (Level.OK, True)


def test_good_certificates_are_told_with_their_ends(settings: Settings) -> None:
    with_certificates(settings)
    found = list(check_certificates(settings, "origin", NOW))
    assert levels(found) == {Level.OK}
    assert len(found) == 2
    assert all(one.what.startswith("is valid until 20") for one in found)


@pytest.mark.parametrize(
    ("days", "level", "what"),
    [
        (-30, Level.ERROR, "is not valid before"),
        (80, Level.WARNING, "expires in"),
        (4000, Level.ERROR, "expired on"),
    ],
)
def test_certificates_whose_time_is_not_now(
    settings: Settings, days: int, level: Level, what: str
) -> None:
    folder = with_certificates(settings)
    then = NOW + dt.timedelta(days=days)
    found = {one.where: one for one in check_certificates(settings, "origin", then)}
    finding = found[str(folder / "origin.pem")]
    assert (finding.level, finding.exit_code) == (level, 3 if level is Level.ERROR else 0)
    assert what in finding.what
    assert finding.remedy


def test_a_key_that_everybody_may_read_is_one_error(settings: Settings) -> None:
    folder = with_certificates(settings)
    (folder / "origin.key").chmod(0o644)
    found = list(check_certificates(settings, "origin", NOW))
    assert [one.level for one in found] == [Level.ERROR]
    assert "chmod 600" in found[0].remedy


def test_what_is_no_certificate_is_an_error(settings: Settings) -> None:
    folder = with_certificates(settings)
    (folder / "origin.pem").write_text("nonsense")
    assert Level.ERROR in levels(list(check_certificates(settings, "origin", NOW)))


def test_a_clock_of_before_this_program_is_wrong() -> None:
    assert check_clock(NOW).level is Level.OK
    finding = check_clock(dt.datetime(1970, 1, 2, tzinfo=dt.UTC))
    assert (finding.level, finding.exit_code) == (Level.ERROR, 9)
