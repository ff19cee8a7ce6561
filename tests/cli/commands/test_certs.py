"""certs makes what a host needs and says what to do with it; nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.main import main


def certs(directory: Path, *words: str) -> int:
    return main(["certs", *words, "--directory", str(directory)])


def test_an_authority_and_its_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "certs"
    assert certs(folder, "init") == 0
    assert certs(folder, "issue", "replica", "--server", "--host", "10.0.0.1") == 0
    assert "copy ca.pem, replica.pem and replica.key" in capsys.readouterr().out
    assert (folder / "replica.key").stat().st_mode & 0o777 == 0o600
    assert certs(folder, "show") == 0
    shown = capsys.readouterr().out
    assert "names        replica, 10.0.0.1" in shown
    assert "for          authority" in shown
    assert certs(folder, "show", str(folder / "replica.pem")) == 0
    assert "for          server" in capsys.readouterr().out


def test_a_certificate_without_a_role_is_a_usage_error(tmp_path: Path) -> None:
    assert certs(tmp_path / "c", "init") == 0
    assert certs(tmp_path / "c", "issue", "replica") == 2


def test_an_authority_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certs(tmp_path / "c", "init") == 0
    key = (tmp_path / "c" / "ca.key").read_bytes()
    assert certs(tmp_path / "c", "init") == 3
    told = capsys.readouterr().err
    assert "blockrep certs issue NAME" in told
    assert "another name" not in told, "init takes none"
    assert (tmp_path / "c" / "ca.key").read_bytes() == key


def test_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert certs(tmp_path / "none", "show") == 3
    assert "certs init" in capsys.readouterr().err


def test_to_issue_without_an_authority_names_what_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certs(tmp_path, "issue", "origin", "--client") == 3
    told = capsys.readouterr().err
    assert "there is no authority here" in told
    assert "blockrep certs init" in told


def test_days_are_bounded(tmp_path: Path) -> None:
    assert certs(tmp_path / "c", "init") == 0
    assert certs(tmp_path / "c", "issue", "a", "--client", "--days", "0") == 2


@pytest.mark.parametrize("text", ["[server]\nmax_session = 5\n", "[clients.a]\ntarget = []\n"])
def test_a_fault_elsewhere_in_the_configuration_does_not_keep_a_revocation_off(
    tmp_path: Path, text: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"{text}[tls]\ndirectory = 'keys'\n")
    assert certs(tmp_path / "keys", "init") == 0
    assert certs(tmp_path / "keys", "issue", "origin", "--client") == 0
    assert main(["certs", "revoke", "origin", "--config", str(config)]) == 0
    assert (tmp_path / "keys" / "ca.crl").exists()


@pytest.mark.parametrize("text", ["[server\n", "[tls]\ndirectory = 5\n"])
def test_where_the_certificates_are_can_be_said_if_the_configuration_cannot(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    assert main(["certs", "revoke", "origin", "--config", str(config)]) == 3
    told = capsys.readouterr().err
    assert str(config) in told
    assert "--directory" in told


def test_a_list_that_nobody_reads_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[tls]\ncrl = 'elsewhere/list.pem'\n")
    assert certs(tmp_path / "certs", "init") == 0
    assert certs(tmp_path / "certs", "issue", "origin", "--client") == 0
    assert main(["certs", "revoke", "origin", "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert f"copy it to {tmp_path}/elsewhere/list.pem" in told
    assert "notices by itself" not in told
    config.write_text("[tls]\ncrl = 'certs/ca.crl'\n")
    assert main(["certs", "revoke", "origin", "--config", str(config)]) == 0
    assert "notices by itself" in capsys.readouterr().out
