"""No host key is accepted but those in the files of known hosts."""

from __future__ import annotations

import re
from pathlib import Path

import asyncssh
import pytest

from blockrep.errors import ConfigurationError
from blockrep.transport.ssh.host_keys import HostKeyCheck, known_hosts_files
from support.sshd import make_key


@pytest.fixture
def key(tmp_path: Path) -> str:
    return make_key(tmp_path / "key")


def known(tmp_path: Path, text: str) -> HostKeyCheck:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    return HostKeyCheck("replica", [str(path)])


def test_known_by_name_and_port_never_by_address(tmp_path: Path, key: str) -> None:
    check = known(tmp_path, f"replica {key}\n[other]:2222 {key}\n10.0.0.9 {key}\n")
    assert check.known_hosts("replica", "10.0.0.1", None)[0]
    assert check.known_hosts("other", "10.0.0.1", 2222)[0]
    assert not check.known_hosts("another", "10.0.0.9", None)[0]


def test_revoked_keys_are_told_apart(tmp_path: Path, key: str) -> None:
    found = known(tmp_path, f"@revoked replica {key}\n").known_hosts("replica", "", None)
    assert not found[0]
    assert found[2]


def test_a_key_that_is_offered_is_never_accepted_but_shown(tmp_path: Path, key: str) -> None:
    check = known(tmp_path, "")
    check.known_hosts("replica", "10.0.0.1", 2222)
    offered = asyncssh.import_public_key(key)
    assert check.validate_host_public_key("replica", "10.0.0.1", 2222, offered) is False
    text = str(check.refusal("not trusted"))
    assert offered.get_fingerprint() in text
    (line,) = re.findall(r"echo '(.*)' >>(.*)$", text)
    assert line == (f"[replica]:2222 {' '.join(key.split()[:2])}", str(tmp_path / "known_hosts"))
    assert "keyscan" not in text


def test_a_file_that_is_not_there_yet_is_the_one_to_write_to(tmp_path: Path, key: str) -> None:
    check = HostKeyCheck("replica", [str(tmp_path / "a b"), "/etc/ssh/ssh_known_hosts"])
    check.known_hosts("replica", "10.0.0.1", None)
    offered = asyncssh.import_public_key(key)
    check.validate_host_public_key("replica", "10.0.0.1", 22, offered)
    assert str(check.refusal("")).endswith(f"' >>'{tmp_path}/a b'")


def test_a_refusal_without_a_key(tmp_path: Path) -> None:
    assert "reason" in str(known(tmp_path, "").refusal("reason"))


def test_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    mine, everybodys = f"{tmp_path}/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"
    assert known_hosts_files((), ()) == [mine, everybodys]
    assert known_hosts_files(["~/a", "/b"], ()) == [f"{tmp_path}/a", "/b", everybodys]
    assert known_hosts_files((), ["/c"]) == [mine, "/c"]
    assert known_hosts_files((), []) == [mine]
    with pytest.raises(ConfigurationError, match="no way to know a host"):
        known_hosts_files([], ())
