"""A certificate is described as it is, and warned about in time."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.describe import describe, expires_soon
from blockrep.certificates.naming import Role
from blockrep.errors import ConfigurationError

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs") / "certs"
    create_authority(directory)
    issue(directory, "replica", [Role.SERVER], ["127.0.0.1"], days=20, now=NOW)
    return directory


def test_what_a_certificate_says(directory: Path) -> None:
    info = describe(directory / "replica.pem")
    assert info.path == directory / "replica.pem"
    assert info.subject == "replica"
    assert info.issuer == describe(directory / "ca.pem").subject
    assert info.names == ("replica",)
    assert info.addresses == ("127.0.0.1",)
    assert info.roles == {Role.SERVER}
    assert not info.is_authority
    assert info.not_before < NOW < info.not_after


def test_the_fingerprint_is_what_openssl_says(directory: Path) -> None:
    info = describe(directory / "replica.pem")
    shown = ["-noout", "-fingerprint", "-sha256", "-serial"]
    argv = ["openssl", "x509", *shown, "-in", str(info.path)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert info.fingerprint.upper() in told.replace(":", "")
    assert info.serial.upper() in told


def test_an_authority_is_one(directory: Path) -> None:
    info = describe(directory / "ca.pem")
    assert info.is_authority
    assert info.names == ()
    assert info.roles == set(Role)


def test_it_is_warned_14_days_ahead(directory: Path) -> None:
    info = describe(directory / "replica.pem")
    assert not expires_soon(info, NOW)
    assert not expires_soon(info, NOW + dt.timedelta(days=5))
    assert expires_soon(info, NOW + dt.timedelta(days=7))
    assert expires_soon(info, NOW + dt.timedelta(days=21))
    assert info.days_left(NOW + dt.timedelta(days=22)) < 0


def test_what_is_no_certificate(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no certificate here; make one"):
        describe(tmp_path / "none.pem")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        describe(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a certificate in PEM form"):
        describe(directory / "replica.key")
