"""A host finds its own certificate without being told, and never picks one by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.config.identity import certificate_with, find_files
from blockrep.config.settings import TlsSettings
from blockrep.errors import ConfigurationError


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    create_authority(tmp_path)
    return tmp_path


def chosen(certs: Path, role: Role, host_name: str = "elsewhere") -> str:
    files = find_files(TlsSettings(certs), role, host_name)
    assert files.ca == certs / "ca.pem"
    assert files.key == files.certificate.with_suffix(".key")
    return files.certificate.name


def test_what_the_configuration_names_is_taken_unseen(tmp_path: Path) -> None:
    settings = TlsSettings(tmp_path, Path("/a.pem"), Path("/b.pem"), Path("/c.key"), Path("/d.crl"))
    files = find_files(settings, Role.SERVER, "x")
    assert (files.ca, files.certificate) == (Path("/a.pem"), Path("/b.pem"))
    assert (files.key, files.crl) == (Path("/c.key"), Path("/d.crl"))


def test_a_list_beside_the_authority_counts_unless_another_is_named(tmp_path: Path) -> None:
    files = {"certificate": tmp_path / "x.pem", "key": tmp_path / "x.key"}
    assert find_files(TlsSettings(tmp_path, **files), Role.SERVER, "x").crl is None
    (tmp_path / "ca.crl").touch()
    assert find_files(TlsSettings(tmp_path, **files), Role.SERVER, "x").crl == tmp_path / "ca.crl"
    other = TlsSettings(tmp_path, **files, crl=Path("/d.crl"))
    assert find_files(other, Role.SERVER, "x").crl == Path("/d.crl")


def test_the_only_certificate(certs: Path) -> None:
    issue(certs, "replica", [Role.SERVER])
    assert chosen(certs, Role.SERVER) == "replica.pem"


def test_a_certificate_without_its_key_is_none(certs: Path) -> None:
    for name in ("replica", "origin"):
        issue(certs, name, [Role.SERVER, Role.CLIENT])
    (certs / "origin.key").unlink()
    assert chosen(certs, Role.CLIENT) == "replica.pem"


def test_host_pem_comes_first(certs: Path) -> None:
    issue(certs, "replica", [Role.SERVER])
    (certs / "host.pem").touch()
    (certs / "host.key").touch()
    assert chosen(certs, Role.SERVER) == "host.pem"


def test_where_all_certificates_are_the_name_of_the_host_decides(certs: Path) -> None:
    for name in ("replica", "origin", "third.example.com"):
        issue(certs, name, [Role.SERVER, Role.CLIENT])
    assert chosen(certs, Role.CLIENT, "origin") == "origin.pem"
    assert chosen(certs, Role.CLIENT, "Origin.example.com") == "origin.pem"
    assert chosen(certs, Role.CLIENT, "third.example.com") == "third.example.com.pem"


def test_else_the_role_decides(certs: Path) -> None:
    issue(certs, "replica", [Role.SERVER])
    issue(certs, "origin", [Role.CLIENT])
    assert chosen(certs, Role.SERVER) == "replica.pem"
    assert chosen(certs, Role.CLIENT) == "origin.pem"


def test_several_that_fit_are_not_chosen_from(certs: Path) -> None:
    issue(certs, "alpha", [Role.CLIENT])
    issue(certs, "beta", [Role.CLIENT])
    with pytest.raises(ConfigurationError, match=r"There are alpha\.pem, beta\.pem; .*host\.pem"):
        chosen(certs, Role.CLIENT)
    with pytest.raises(ConfigurationError, match="which certificate"):
        chosen(certs, Role.SERVER)


def test_none_is_told_with_the_command_that_makes_one(certs: Path) -> None:
    with pytest.raises(ConfigurationError, match="blockrep certs issue NAME --client"):
        chosen(certs, Role.CLIENT)
    with pytest.raises(ConfigurationError, match="no certificate of this host"):
        chosen(certs / "missing", Role.SERVER)


def test_what_is_taken_once_a_certificate_comes(certs: Path) -> None:
    coming = certs / "new.pem"
    tls = TlsSettings(certs)
    assert certificate_with(tls, "elsewhere", coming) == coming
    issue(certs, "replica", [Role.SERVER])
    assert certificate_with(tls, "elsewhere", coming) == coming  # the other one is no client's
    assert certificate_with(tls, "replica.example", coming) == certs / "replica.pem"
    assert certificate_with(tls, "new", coming) == coming
    issue(certs, "origin", [Role.CLIENT])
    with pytest.raises(ConfigurationError, match=r"which .* origin\.pem, new\.pem"):
        certificate_with(tls, "elsewhere", coming)
    named = TlsSettings(certs, None, certs / "origin.pem", certs / "origin.key", None)
    assert certificate_with(named, "new", coming) == certs / "origin.pem"
