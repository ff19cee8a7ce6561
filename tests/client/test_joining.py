"""Whoever joins checks the server first, and never overwrites what is there."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blockrep.certificates.authority import create_authority, issue, sign
from blockrep.certificates.files import write_new_files
from blockrep.certificates.invitations import Token
from blockrep.certificates.naming import Role
from blockrep.client.joining import authority_context, join, renew, unverified_context
from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ConnectionLostError,
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
    return Token("replica", 8733, "replica", digest, "alpha", "0" * 16, b"s" * 32)


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
        ([None, {"name": "../x", "certificate": b"x"}], ProtocolError),
        ([None, {"name": "alpha", "certificate": b"x"}], ProtocolError),
        ([None, None], ProtocolError),
    ],
)
async def test_what_the_server_must_not_answer(
    server: Path, tmp_path: Path, answers: list[Any], error: type[BlockrepError]
) -> None:
    (tmp_path / "client").mkdir(mode=0o700)
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


class Desk(Server):
    """Issues certificates; the first answers are lost on the way back."""

    def __init__(self, directory: Path, lost: int = 0, name: str = "alpha") -> None:
        super().__init__()
        self.name = name
        self.directory = directory
        self.lost = lost
        self.keys: set[bytes] = set()

    async def __call__(self, context: ssl.SSLContext, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((context.verify_mode, request))
        if request["want"] == "authority":
            return {"authority": (self.directory / "ca.pem").read_bytes()}
        key = x509.load_der_x509_csr(request["request"]).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.keys.add(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        certificate = sign(
            self.directory, "alpha", [Role.CLIENT], [x509.DNSName("alpha")], key, days=9
        )
        self.lost -= 1
        if self.lost >= 0:
            raise ConnectionLostError("the connection ended")
        return {"name": self.name, "certificate": certificate.public_bytes(Encoding.PEM)}


async def test_a_certificate_of_another_name_is_not_taken(server: Path, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="of another name"):
        await join(token_of(server), Desk(server, name="beta"), tmp_path / "client")
    assert not list((tmp_path / "client").iterdir())


async def test_after_a_lost_answer_the_same_key_asks_again(server: Path, tmp_path: Path) -> None:
    desk = Desk(server, lost=1)
    directory = tmp_path / "client"
    with pytest.raises(ConnectionLostError, match="same token") as caught:
        await join(token_of(server), desk, directory)
    assert "not known whether" in str(caught.value)
    assert [path.name for path in directory.iterdir()] == ["alpha.key"]
    assert (directory / "alpha.key").stat().st_mode & 0o777 == 0o600
    path = await join(token_of(server), desk, directory)
    assert path == directory / "alpha.pem"
    assert len(desk.keys) == 1


async def test_a_key_that_was_there_outlives_a_refusal(server: Path, tmp_path: Path) -> None:
    """It may be the one of a certificate that was issued, and whose answer was lost."""
    directory = tmp_path / "client"
    with pytest.raises(ConnectionLostError):
        await join(token_of(server), Desk(server, lost=1), directory)
    key = (directory / "alpha.key").read_bytes()
    authority = {"authority": (server / "ca.pem").read_bytes()}
    with pytest.raises(RefusedError):
        await join(token_of(server), Server(authority, RefusedError("no")), directory)
    assert (directory / "alpha.key").read_bytes() == key


def others_may_write(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)


def no_directory(directory: Path) -> None:
    directory.write_text("")


def a_certificate_of_that_name(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "alpha.pem").write_text("")


def a_key_of_that_name(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "alpha.key").write_text("no key")


@pytest.mark.parametrize(
    "obstacle",
    [others_may_write, no_directory, a_certificate_of_that_name, a_key_of_that_name],
)
async def test_what_is_in_the_way_is_found_before_the_invitation_is_used(
    server: Path, tmp_path: Path, obstacle: Callable[[Path], None]
) -> None:
    desk = Desk(server)
    obstacle(tmp_path / "client")
    with pytest.raises(ConfigurationError):
        await join(token_of(server), desk, tmp_path / "client")
    assert not desk.keys


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


async def test_a_host_may_join_by_a_second_name(server: Path, tmp_path: Path) -> None:
    """What is there of the same authority is as good."""
    directory = tmp_path / "client"
    create_authority(directory)
    (directory / "ca.pem").write_bytes((server / "ca.pem").read_bytes())
    await join(token_of(server), Desk(server), directory)
    assert (directory / "alpha.pem").exists()


async def test_a_crash_while_it_is_written_does_not_end_the_invitation(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is the last to come: what is there of a name is never overwritten."""
    desk, directory = Desk(server), tmp_path / "client"
    with monkeypatch.context() as patch:

        def write_the_first_only(files: Sequence[tuple[Path, bytes, int]]) -> None:
            write_new_files(files[:1])
            if len(files) > 1:
                raise InterruptedError

        patch.setattr("blockrep.client.joining.write_new_files", write_the_first_only)
        with pytest.raises(InterruptedError):
            await join(token_of(server), desk, directory)
    await join(token_of(server), desk, directory)
    assert {path.name for path in directory.iterdir()} == {"ca.pem", "alpha.pem", "alpha.key"}
    assert len(desk.keys) == 1


async def test_a_renewed_certificate_takes_the_place_of_the_old(server: Path) -> None:
    files = (server / "alpha.pem", server / "alpha.key", server / "ca.pem")
    desk, before = Desk(server), files[0].read_bytes()
    await renew(*files, desk)
    assert files[0].read_bytes() != before
    ((mode, request),) = desk.asked
    assert mode is ssl.CERT_REQUIRED
    assert request["certificate"] == before


def test_only_the_authority_is_trusted_and_no_old_tls(server: Path) -> None:
    context = authority_context((server / "ca.pem").read_bytes())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert not context.hostname_checks_common_name
    assert len(context.get_ca_certs()) == 1
    for one in (context, unverified_context()):
        assert one.minimum_version is ssl.TLSVersion.TLSv1_3
