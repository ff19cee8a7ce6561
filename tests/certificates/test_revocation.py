"""A list names every certificate that was taken back, and OpenSSL understands it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.certificates.renewal import renew
from blockrep.certificates.revocation import revoke, revoked_serials, serials_on
from blockrep.errors import ConfigurationError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs")
    for name in ("alpha", "alpha.example", "beta"):
        issue(tmp_path / "certs", name, [Role.CLIENT])
    return tmp_path / "certs"


def accepted(directory: Path, name: str) -> bool:
    argv = ["openssl", "verify", "-crl_check", "-CAfile", str(directory / "ca.pem")]
    argv += ["-CRLfile", str(directory / "ca.crl"), str(directory / f"{name}.pem")]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_all_of_a_name_and_no_other(directory: Path) -> None:
    renew(directory, "alpha")
    assert revoked_serials(directory) == frozenset()
    assert len(revoke(directory, "alpha")) == 2
    assert len(revoked_serials(directory)) == 2
    assert not accepted(directory, "alpha")
    assert accepted(directory, "alpha.example")
    assert accepted(directory, "beta")


def test_the_list_grows_and_repeats_nothing(directory: Path) -> None:
    revoke(directory, "alpha")
    revoke(directory, "alpha")
    revoke(directory, str(directory / "beta.pem"))
    assert len(revoked_serials(directory)) == 2
    assert not accepted(directory, "alpha")
    assert not accepted(directory, "beta")


def test_a_file_stands_for_its_key(directory: Path, tmp_path: Path) -> None:
    """Whoever has a lost key has every certificate of it."""
    stolen = tmp_path / "stolen.pem"
    stolen.write_bytes((directory / "alpha.pem").read_bytes())
    renew(directory, "alpha")
    assert len(revoke(directory, str(stolen))) == 2
    assert not accepted(directory, "alpha")
    assert accepted(directory, "beta")
    renew(directory, "beta", new_key=True)
    assert len(revoke(directory, str(directory / "beta.pem"))) == 1


def test_what_cannot_be_revoked(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no certificate of gamma"):
        revoke(directory, "gamma")
    create_authority(tmp_path / "other")
    issue(tmp_path / "other", "delta", [Role.CLIENT])
    with pytest.raises(ConfigurationError, match="another authority"):
        revoke(directory, str(tmp_path / "other" / "delta.pem"))
    (directory / "ca.crl").write_text("damaged")
    with pytest.raises(ConfigurationError, match="not a revocation list"):
        revoked_serials(directory)
    assert serials_on(directory / "none.crl") == frozenset()


def test_the_one_that_is_there_counts_though_no_copy_was_kept(directory: Path) -> None:
    for path in (directory / "issued").glob("alpha.*"):
        path.unlink()
    (revoked,) = revoke(directory, "alpha")
    assert not accepted(directory, "alpha")
    assert revoked_serials(directory) == {revoked.serial_number}


def test_a_file_in_this_folder_is_one(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stolen.pem").write_bytes((directory / "alpha.pem").read_bytes())
    (tmp_path / "stolen").write_bytes((directory / "beta.pem").read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("stolen.pem", "./stolen"):
        revoke(directory, name)
    assert not accepted(directory, "alpha")
    assert not accepted(directory, "beta")


def test_a_name_is_never_a_pattern(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a certificate"):
        revoke(directory, "*")
    assert revoked_serials(directory) == frozenset()
