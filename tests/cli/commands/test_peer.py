"""``blockrep peer`` refuses what makes no sense before it calls anybody.

Whole pairings are in tests/integration/test_pairing.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.invitations import Token
from blockrep.certificates.naming import Role
from blockrep.cli.main import main
from blockrep.client import joining
from blockrep.model.names import parse_target


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(f"[storage]\nstate_directory = '{tmp_path}/state'\n")
    return file


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["invite", "alpha"], 3, "there is no authority here"),
        (["invite", "ALPHA"], 3, "cannot be the name"),
        (["invite", "alpha", "--minutes", "0"], 2, "minutes"),
        (["join", "brp1-x"], 2, "is not a whole token"),
        (["renew", "replica"], 3, "there is no certificate of this host"),
        (["accept"], 2, "invalid choice"),
    ],
)
def test_words(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    assert (
        main(["peer", *words, *([] if words == ["accept"] else ["--config", str(config)])]) == code
    )
    assert text in capsys.readouterr().err


def test_a_token_alone_is_on_standard_output(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificates = config.parent / "certs"
    create_authority(certificates)
    issue(certificates, "replica", [Role.SERVER])
    assert main(["peer", "invite", "alpha", "--config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("brp1-")
    assert len(out.splitlines()) == 1
    assert "within 10 minutes" in err
    for host in ("*", "a b"):
        assert main(["peer", "invite", "beta", "--host", host, "--config", str(config)]) == 2


@pytest.mark.parametrize(
    ("days", "text"),
    [("0", "0 days"), ("-3", "-3 days"), ("999999", "999999 days"), ("3650", "outlive")],
)
def test_days_that_no_certificate_can_have_are_told_before_there_is_a_token(
    config: Path, capsys: pytest.CaptureFixture[str], days: str, text: str
) -> None:
    certificates = config.parent / "certs"
    create_authority(certificates)
    issue(certificates, "replica", [Role.SERVER])
    assert main(["peer", "invite", "alpha", "--days", days, "--config", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert not (config.parent / "state").exists()


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("replica", 8733, "replica:VG/LV"),
        ("replica", 9000, "tls://replica:9000/VG/LV"),
        ("::1", 8733, "[::1]:VG/LV"),
        ("::1", 9000, "tls://[::1]:9000/VG/LV"),
    ],
)
def test_who_joined_is_told_a_target_that_reaches_the_same_server(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    port: int,
    target: str,
) -> None:
    async def join(_token: Token, _ask: object, directory: Path) -> Path:
        return directory / "alpha.pem"

    monkeypatch.setattr(joining, "join", join)
    token = Token(host, port, "replica", b"", "alpha", "0" * 16, b"").encode()
    assert main(["peer", "join", token, "--config", str(config)]) == 0
    assert capsys.readouterr().out.endswith(f"next: blockrep push VG/LV {target}\n")
    parsed = parse_target(target)
    assert (parsed.host, parsed.port) == (host, port)


@pytest.mark.parametrize("tls", [False, True], ids=["beside", "in [tls]"])
def test_a_certificate_that_would_not_be_taken_is_told_before_the_token_is_used(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    async def join(_token: Token, _ask: object, directory: Path) -> Path:
        joined.append(directory)
        return directory / "alpha.pem"

    joined: list[Path] = []
    monkeypatch.setattr(joining, "join", join)
    certificates = config.parent / "certs"
    create_authority(certificates)
    issue(certificates, "origin", [Role.CLIENT])
    if tls:
        with config.open("a") as file:
            file.write("[tls]\ncertificate = 'certs/origin.pem'\nkey = 'certs/origin.key'\n")
    token = Token("replica", 8733, "replica", b"", "alpha", "0" * 16, b"").encode()
    assert main(["peer", "join", token, "--config", str(config)]) == 3
    told = capsys.readouterr().err
    assert ("pushes would take this certificate" in told) == tls
    assert "the token was not used" in told
    assert "--directory DIR" in told
    assert not joined
    other = str(config.parent / "other")
    assert main(["peer", "join", token, "--directory", other, "--config", str(config)]) == 0
    assert f"[tls] directory = '{other}'" in capsys.readouterr().out
    assert joined == [Path(other)]
