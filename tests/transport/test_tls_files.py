"""Missing and unprotected files are told by name before TLS starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.errors import ConfigurationError
from blockrep.transport.tls_files import TlsFiles
from transport.hosts import Hosts


def test_complete_files_pass(hosts: Hosts) -> None:
    hosts.server().check()


@pytest.mark.parametrize(
    ("name", "command"),
    [("ca", "init"), ("certificate", "issue"), ("key", "issue"), ("crl", "revoke")],
)
def test_a_missing_file_is_named_and_where_it_comes_from(
    hosts: Hosts, tmp_path: Path, name: str, command: str
) -> None:
    files = hosts.server()
    paths = {"ca": files.ca, "certificate": files.certificate, "key": files.key, "crl": files.ca}
    broken = TlsFiles(**{**paths, name: tmp_path / "missing"})
    told = rf"missing: the .* is not here; copy it .* blockrep certs {command}, .*\[tls\]"
    with pytest.raises(ConfigurationError, match=told):
        broken.check()


def test_a_key_that_others_can_read_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    files = hosts.server()
    key = tmp_path / "open.key"
    key.write_bytes(files.key.read_bytes())
    key.chmod(0o604)
    with pytest.raises(ConfigurationError, match=r"every user .*; run: chmod 600"):
        TlsFiles(files.ca, files.certificate, key).check()
    key.chmod(0o640)  # a group of its own, as Debian's ssl-cert, is the administrator's choice
    TlsFiles(files.ca, files.certificate, key).check()


def test_a_file_that_this_user_may_not_read_is_told(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    with pytest.raises(ConfigurationError, match="cannot be read by this user"):
        hosts.server().check()
