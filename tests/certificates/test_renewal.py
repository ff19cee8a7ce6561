"""A renewed certificate says what the old one said, for longer."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.describe import describe
from blockrep.certificates.naming import Role
from blockrep.certificates.renewal import renew
from blockrep.certificates.revocation import revoke
from blockrep.errors import ConfigurationError, RefusedError

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs")
    issue(tmp_path / "certs", "replica", [Role.SERVER], ["r.example", "10.0.0.1"], 20, now=NOW)
    return tmp_path / "certs"


@pytest.mark.parametrize("new_key", [False, True])
def test_the_same_with_a_later_end(directory: Path, *, new_key: bool) -> None:
    before, key = describe(directory / "replica.pem"), (directory / "replica.key").read_bytes()
    after = renew(directory, "replica", 50, new_key=new_key, now=NOW)
    assert (after.names, after.addresses, after.roles) == (
        before.names,
        before.addresses,
        before.roles,
    )
    assert after.serial != before.serial
    assert after.days_left(NOW) >= 49
    assert ((directory / "replica.key").read_bytes() == key) is not new_key
    assert (directory / "replica.key").stat().st_mode & 0o777 == 0o600
    assert len(list((directory / "issued").glob("replica.*.pem"))) == 2


def test_a_revoked_one_is_not_renewed(directory: Path) -> None:
    revoke(directory, "replica")
    with pytest.raises(RefusedError, match="was revoked"):
        renew(directory, "replica")


def test_a_list_elsewhere_counts_too(directory: Path, tmp_path: Path) -> None:
    revoke(directory, "replica")
    elsewhere = tmp_path / "list.crl"
    (directory / "ca.crl").rename(elsewhere)
    with pytest.raises(RefusedError, match="was revoked"):
        renew(directory, "replica", crl=elsewhere)


def test_what_is_not_there_is_not_renewed(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no certificate"):
        renew(directory, "other")
    (directory / "ca.key").unlink()
    with pytest.raises(ConfigurationError, match="key of the authority is not here"):
        renew(directory, "replica")


def test_a_key_that_is_not_ours(directory: Path) -> None:
    """Somebody's own certificate lies there by that name."""
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=replica"]
    argv += ["-keyout", str(directory / "replica.key"), "-out", str(directory / "replica.pem")]
    subprocess.run(argv, check=True, capture_output=True)
    before = (directory / "replica.pem").read_bytes()
    with pytest.raises(ConfigurationError, match="its key is of another kind than ours"):
        renew(directory, "replica")
    assert (directory / "replica.pem").read_bytes() == before


@pytest.mark.parametrize("name", ["../replica", "a/b", "", "*"])
def test_a_name_is_never_a_path(directory: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a certificate"):
        renew(directory, name)
