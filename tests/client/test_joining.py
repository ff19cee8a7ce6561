"""Whoever joins checks the server first, and never overwrites what is there."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.invitations import Token
from blockrep.certificates.naming import Role
from blockrep.client.joining import join, renew
from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ProtocolError,
    RefusedError,
    VerificationFailedError,
)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    create_authority(tmp_path / "server")
    issue(tmp_path / "server", "alpha", [Role.CLIENT])
    return tmp_path / "server"


def token_of(server: Path) -> Token:
    authority = x509.load_pem_x509_certificate((server / "ca.pem").read_bytes())
    digest = authority.fingerprint(hashes.SHA256())
    return Token("replica", 8733, "replica", digest, "0" * 16, b"s" * 32)


class Server:
    """Answers as told; remembers what it was asked, and how far it was trusted."""

    def __init__(self, *answers: dict[str, Any] | BlockrepError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[ssl.VerifyMode, dict[str, Any]]] = []

    async def __call__(self, context: ssl.SSLContext, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((context.verify_mode, request))
        answer = self.answers.pop(0)
        if isinstance(answer, BlockrepError):
            raise answer
        return answer


async def test_the_secret_goes_only_to_whom_the_token_names(server: Path, tmp_path: Path) -> None:
    create_authority(tmp_path / "impostor")
    asked = Server({"authority": (tmp_path / "impostor" / "ca.pem").read_bytes()})
    with pytest.raises(VerificationFailedError, match="somebody is in between"):
        await join(token_of(server), asked, tmp_path / "client")
    assert [request for _, request in asked.asked] == [{"want": "authority"}]
    assert not (tmp_path / "client").exists()


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([RefusedError("no")], RefusedError),
        ([{}], ProtocolError),
        ([{"authority": b"no"}], ProtocolError),
        ([None, {"name": "alpha", "certificate": "text"}], ProtocolError),
        ([None, {"name": "../x", "certificate": b"x"}], ConfigurationError),
        ([None, {"name": "alpha", "certificate": b"x"}], ProtocolError),
        ([None, None], ProtocolError),
    ],
)
async def test_what_the_server_must_not_answer(
    server: Path, tmp_path: Path, answers: list[Any], error: type[BlockrepError]
) -> None:
    right = {"authority": (server / "ca.pem").read_bytes()}
    other_key = {"name": "alpha", "certificate": (server / "alpha.pem").read_bytes()}
    filled = [
        (right, other_key)[number] if one is None else one for number, one in enumerate(answers)
    ]
    asked = Server(*filled)
    with pytest.raises(error):
        await join(token_of(server), asked, tmp_path / "client")
    assert not list((tmp_path / "client").glob("*"))
    assert all(mode is ssl.CERT_REQUIRED for mode, one in asked.asked if "secret" in one)


async def test_another_authority_is_not_replaced(server: Path, tmp_path: Path) -> None:
    create_authority(tmp_path / "client")
    before = (tmp_path / "client" / "ca.pem").read_bytes()
    asked = Server({"authority": (server / "ca.pem").read_bytes()})
    with pytest.raises(ConfigurationError, match="another authority"):
        await join(token_of(server), asked, tmp_path / "client")
    assert (tmp_path / "client" / "ca.pem").read_bytes() == before


async def test_a_renewal_for_another_key_is_not_taken(server: Path, tmp_path: Path) -> None:
    issue(server, "beta", [Role.CLIENT])
    before = (server / "alpha.pem").read_bytes()
    asked = Server({"certificate": (server / "beta.pem").read_bytes()})
    files = (server / "alpha.pem", server / "alpha.key", server / "ca.pem")
    with pytest.raises(ProtocolError, match="another key"):
        await renew(*files, asked)
    assert (server / "alpha.pem").read_bytes() == before
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await renew(tmp_path / "none.pem", tmp_path / "none.key", server / "ca.pem", asked)
