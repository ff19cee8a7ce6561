"""What the authority issues is accepted by strict checks, and only for what it was issued for."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from blockrep.certificates.authority import LEAF_DAYS, create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.errors import ConfigurationError, UsageError

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs")
    return tmp_path / "certs"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def openssl_accepts(directory: Path, name: str, purpose: str) -> bool:
    """Ask OpenSSL's strict verification, which knows nothing of us."""
    done = subprocess.run(
        [
            "openssl",
            "verify",
            "-x509_strict",
            "-check_ss_sig",
            "-purpose",
            purpose,
            "-CAfile",
            str(directory / "ca.pem"),
            str(directory / f"{name}.pem"),
        ],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize(
    ("roles", "as_server", "as_client"),
    [
        ([Role.SERVER], True, False),
        ([Role.CLIENT], False, True),
        ([Role.SERVER, Role.CLIENT], True, True),
    ],
)
def test_strict_verification_accepts_each_role_and_no_other(
    directory: Path, roles: list[Role], as_server: bool, as_client: bool
) -> None:
    issue(directory, "host-a", roles)
    assert openssl_accepts(directory, "host-a", "sslserver") is as_server
    assert openssl_accepts(directory, "host-a", "sslclient") is as_client


def test_the_authority_passes_strict_verification_and_signs_no_further_authority(
    directory: Path,
) -> None:
    assert openssl_accepts(directory, "ca", "any")
    constraints = load(directory / "ca.pem").extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_keys_are_for_their_owner_only(directory: Path) -> None:
    issued = issue(directory, "origin", [Role.CLIENT])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert issued.key.stat().st_mode & 0o777 == 0o600
    assert (directory / "ca.key").stat().st_mode & 0o777 == 0o600
    assert issued.certificate.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in directory.glob("*.*")) == [
        "ca.key", "ca.pem", "origin.key", "origin.pem",
    ]  # fmt: skip


def test_nothing_is_overwritten(directory: Path) -> None:
    issue(directory, "origin", [Role.CLIENT])
    before = {path: path.read_bytes() for path in directory.glob("*.*")}
    with pytest.raises(ConfigurationError, match="never overwritten; nothing was changed"):
        create_authority(directory)
    with pytest.raises(ConfigurationError, match=r"origin\.key: exists already"):
        issue(directory, "origin", [Role.CLIENT])
    assert {path: path.read_bytes() for path in directory.glob("*.*")} == before
    for kept in ("ca.key", "ca.pem"):  # the other one is only somewhere else
        (directory / kept).rename(directory / "elsewhere")
        with pytest.raises(ConfigurationError, match="there is an authority already"):
            create_authority(directory)
        (directory / "elsewhere").rename(directory / kept)


def test_others_may_not_write_where_a_key_is_to_be(directory: Path) -> None:
    directory.chmod(0o770)
    with pytest.raises(ConfigurationError, match="others may write to this directory of keys"):
        issue(directory, "origin", [Role.CLIENT])
    with pytest.raises(ConfigurationError, match="others may write to this directory of keys"):
        create_authority(directory)


def test_names_and_addresses_of_a_server(directory: Path) -> None:
    hosts = ["replica", "Replica.example.com", "10.0.0.2", "[2001:db8::2]"]
    issued = issue(directory, "replica", [Role.SERVER], hosts)
    assert issued.info.names == ("replica", "replica.example.com")
    assert issued.info.addresses == ("10.0.0.2", "2001:db8::2")
    assert issued.info.roles == {Role.SERVER}


def test_a_client_has_one_name_but_may_have_addresses(directory: Path) -> None:
    both = [Role.SERVER, Role.CLIENT]
    assert issue(directory, "a", both, ["10.0.0.2", "a"]).info.names == ("a",)
    with pytest.raises(UsageError, match="one name, which is its identity, not b and c"):
        issue(directory, "b", both, ["c"])
    assert not (directory / "b.key").exists()


def test_validity(directory: Path) -> None:
    info = issue(directory, "a", [Role.CLIENT], now=NOW).info
    assert (info.not_after - NOW).days in {LEAF_DAYS - 1, LEAF_DAYS}
    assert info.not_before < NOW - dt.timedelta(minutes=5)  # for hosts whose clock is behind
    assert issue(directory, "b", [Role.CLIENT], days=1, now=NOW).info.days_left(NOW) in {0, 1}
    for days in (0, -1, 3651):
        with pytest.raises(UsageError, match="give 1 to 3650 days"):
            issue(directory, "c", [Role.CLIENT], days=days)


def test_no_certificate_outlives_its_authority(directory: Path) -> None:
    late = NOW + dt.timedelta(days=3600)
    with pytest.raises(UsageError, match="would outlive its authority, which expires on 20"):
        issue(directory, "a", [Role.CLIENT], now=late)


def test_wrong_requests(directory: Path) -> None:
    with pytest.raises(UsageError, match=r"needs a role; give --server .* --client"):
        issue(directory, "a", [])
    with pytest.raises(UsageError, match="neither a host name nor an IP address"):
        issue(directory, "a", [Role.SERVER], ["-x"])
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        issue(directory, "../a", [Role.SERVER])
    assert len(list(directory.glob("*.*"))) == 2


def test_without_an_authority_here(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no authority here"):
        issue(tmp_path / "none", "a", [Role.CLIENT])
    (directory / "ca.key").unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.key: the key of the authority is not here"):
        issue(directory, "a", [Role.CLIENT])


def test_a_key_that_is_not_the_authoritys(tmp_path: Path, directory: Path) -> None:
    create_authority(tmp_path / "other")
    (directory / "ca.key").write_bytes((tmp_path / "other/ca.key").read_bytes())
    with pytest.raises(ConfigurationError, match=r"is not the key of ca\.pem"):
        issue(directory, "a", [Role.CLIENT])
    (directory / "ca.key").write_text("garbage")
    with pytest.raises(ConfigurationError, match="is not an unencrypted private key"):
        issue(directory, "a", [Role.CLIENT])
    (directory / "ca.key").unlink()
    (directory / "ca.key").mkdir()
    with pytest.raises(ConfigurationError, match=r"ca\.key: cannot be read: Is a directory"):
        issue(directory, "a", [Role.CLIENT])


def test_two_authorities_differ_in_name(tmp_path: Path, directory: Path) -> None:
    other = create_authority(tmp_path / "other")
    assert other.info.subject.startswith("blockrep CA ")
    assert other.info.subject != load(directory / "ca.pem").subject.rfc4514_string()[3:]
    assert other.info.is_authority


def test_usages_are_exactly_the_roles(directory: Path) -> None:
    issue(directory, "a", [Role.CLIENT])
    usages = load(directory / "a.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usages.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
