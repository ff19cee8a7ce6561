"""The desk hands out what an invitation says, to whoever has it, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.describe import describe
from blockrep.certificates.invitations import Invitations
from blockrep.certificates.naming import Role
from blockrep.certificates.revocation import revoke
from blockrep.errors import BlockrepError, InternalError, ProtocolError, RefusedError
from blockrep.server.joining import JoinDesk
from blockrep.transport.joining import ask
from blockrep.transport.memory import memory_pair

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs")
    issue(tmp_path / "certs", "origin", [Role.CLIENT], days=20, now=NOW)
    return tmp_path / "certs"


@pytest.fixture
def invitations(tmp_path: Path) -> Invitations:
    return Invitations(tmp_path)


def request_of(key: Any, name: str = "admin") -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, algorithm)
        .public_bytes(serialization.Encoding.DER)
    )


def with_unknown(oid: str) -> bytes:
    """Return a request in which an OID of its key, in hexadecimal, is none that anybody knows."""
    request = request_of(ec.generate_private_key(ec.SECP256R1()))
    known = bytes.fromhex(oid)
    assert known in request
    return request.replace(known, known[:-1] + b"\x63")


def desk_of(
    directory: Path,
    invitations: Invitations,
    now: dt.datetime = NOW,
    knows: Callable[[str], bool] = lambda _: True,
) -> JoinDesk:
    return JoinDesk(directory, invitations, knows, directory.parent / "other.crl", lambda: now)


async def answer(desk: JoinDesk, request: dict[str, Any]) -> dict[str, Any]:
    client, server = memory_pair()
    serving = asyncio.create_task(desk.serve(server))
    try:
        return await ask(client, request)
    finally:
        await client.close()
        await serving


async def test_the_invitation_decides_what_is_in_it(
    directory: Path, invitations: Invitations
) -> None:
    desk = desk_of(directory, invitations)
    was_open = desk.is_open
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    assert [was_open, desk.is_open] == [False, True]
    key = ec.generate_private_key(ec.SECP256R1())
    wish = {"want": "join", "invitation": identifier, "secret": secret, "request": request_of(key)}
    told = await answer(desk, wish)
    assert told["name"] == "alpha"
    (directory / "got.pem").write_bytes(told["certificate"])
    info = describe(directory / "got.pem")
    assert info.names == ("alpha",)
    assert info.roles == {Role.CLIENT}
    assert not info.is_authority
    assert (directory / "alpha.pem").read_bytes() == told["certificate"]
    another = {**wish, "request": request_of(ec.generate_private_key(ec.SECP256R1()))}
    with pytest.raises(RefusedError, match="was used"):
        await answer(desk, another)


async def test_a_lost_answer_is_repeated_to_the_same_key(
    directory: Path, invitations: Invitations
) -> None:
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    desk = desk_of(directory, invitations)
    key = ec.generate_private_key(ec.SECP256R1())
    wish = {"want": "join", "invitation": identifier, "secret": secret, "request": request_of(key)}
    first = await answer(desk, wish)
    assert await answer(desk, {**wish, "request": request_of(key, "beta")}) == first
    assert len(list((directory / "issued").glob("alpha.*"))) == 1
    late = desk_of(directory, invitations, NOW + HOUR)
    with pytest.raises(RefusedError):
        await answer(late, wish)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"secret": bytes(32)}, RefusedError),
        ({"secret": "text"}, ProtocolError),
        ({"invitation": "../../etc/passwd"}, RefusedError),
        ({"invitation": 5}, ProtocolError),
        ({"request": b"no"}, ProtocolError),
        ({"request": None}, ProtocolError),
        ({"request": with_unknown("2a8648ce3d030107")}, ProtocolError),
        ({"request": with_unknown("2a8648ce3d0201")}, ProtocolError),
        ({"request": request_of(ed25519.Ed25519PrivateKey.generate())}, ProtocolError),
        ({"request": request_of(ec.generate_private_key(ec.SECP384R1()))}, ProtocolError),
        ({"want": "anything"}, ProtocolError),
        ({"want": None}, ProtocolError),
    ],
)
async def test_what_is_not_right_gets_nothing(
    directory: Path,
    invitations: Invitations,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    error: type[BlockrepError],
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    request = request_of(ec.generate_private_key(ec.SECP256R1()))
    wish = {"want": "join", "invitation": identifier, "secret": secret, "request": request}
    with pytest.raises(error):
        await answer(desk_of(directory, invitations), {**wish, **change})
    (line,) = [json.loads(one.getMessage()) for one in caplog.records]
    assert (line["event"], line["operation"]) == ("refused", "join")
    assert not (directory / "alpha.pem").exists()
    assert invitations.any_open(NOW), "the invitation is still there"


async def test_a_request_whose_signature_is_wrong_gets_nothing(
    directory: Path, invitations: Invitations
) -> None:
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    forged = bytearray(request_of(ec.generate_private_key(ec.SECP256R1())))
    forged[-1] ^= 1
    wish = {"invitation": identifier, "secret": secret, "request": bytes(forged)}
    with pytest.raises(ProtocolError):
        await answer(desk_of(directory, invitations), {"want": "join", **wish})


async def test_a_certificate_is_renewed_for_its_own_key_only(
    directory: Path, invitations: Invitations, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key((directory / "origin.key").read_bytes(), None)
    old = (directory / "origin.pem").read_bytes()
    desk = desk_of(directory, invitations)
    wish = {"want": "renew", "certificate": old, "request": request_of(key)}
    told = await answer(desk, wish)
    (tmp_path / "new.pem").write_bytes(told["certificate"])
    assert describe(tmp_path / "new.pem").days_left(NOW) >= 89
    thief = request_of(ec.generate_private_key(ec.SECP256R1()))
    create_authority(tmp_path / "other")
    issue(tmp_path / "other", "origin", [Role.CLIENT], days=20, now=NOW)
    foreign = (tmp_path / "other" / "origin.pem").read_bytes()
    its_key = serialization.load_pem_private_key(
        (tmp_path / "other" / "origin.key").read_bytes(), None
    )
    for change in (
        {"request": thief},
        {"certificate": foreign},
        {"certificate": foreign, "request": request_of(its_key)},  # of somebody's own authority
    ):
        with pytest.raises(RefusedError):
            await answer(desk, {**wish, **change})
    late = desk_of(directory, invitations, NOW + dt.timedelta(days=21))
    with pytest.raises(RefusedError):
        await answer(late, wish)
    revoke(directory, "origin")
    with pytest.raises(RefusedError, match="revoked"):
        await answer(desk, wish)


def signed(directory: Path, names: list[str], key: ec.EllipticCurvePrivateKey, san: bool) -> bytes:
    """Return what the authority's key may have signed by other means than ours."""
    authority = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    signing = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one) for one in names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a")]), False)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def test_a_certificate_that_only_says_it_is_the_authoritys_is_not_renewed(
    directory: Path, invitations: Invitations, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    forger = tmp_path / "forger"
    create_authority(forger)
    shutil.copy(directory / "ca.pem", forger / "ca.pem")  # the name is right, the key is not
    for folder, error in ((forger, RefusedError), (directory, None)):
        certificate = signed(folder, ["origin"], key, san=True)
        wish = {"want": "renew", "certificate": certificate, "request": request_of(key)}
        with pytest.raises(error) if error else contextlib.nullcontext():
            told = await answer(desk_of(directory, invitations), wish)
    (tmp_path / "new.pem").write_bytes(told["certificate"])
    assert describe(tmp_path / "new.pem").roles == set(Role), "the old one was for any use"


async def test_a_renewal_without_a_certificate_is_no_request(
    directory: Path, invitations: Invitations
) -> None:
    wish = renewal_of(directory)
    for certificate in (b"none", None):
        with pytest.raises(ProtocolError, match="holds no certificate"):
            await answer(desk_of(directory, invitations), {**wish, "certificate": certificate})


@pytest.mark.parametrize(
    ("names", "san"), [([], True), (["a", "b"], True), (["../a"], True), (["a"], False)]
)
async def test_a_certificate_that_names_nobody_is_not_renewed(
    directory: Path,
    invitations: Invitations,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    san: bool,
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signed(directory, names, key, san)
    wish = {"want": "renew", "certificate": certificate, "request": request_of(key)}
    with pytest.raises(ProtocolError, match="names nobody"):
        await answer(desk_of(directory, invitations), wish)
    (line,) = [json.loads(one.getMessage()) for one in caplog.records]
    assert (line["event"], line["operation"]) == ("refused", "join")


async def test_a_question_that_a_defect_or_a_disk_left_open_is_answered_and_on_record(
    directory: Path, invitations: Invitations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    (directory / "ca.pem").unlink()
    with pytest.raises(InternalError, match="not answered"):
        await answer(desk_of(directory, invitations), {"want": "authority"})
    lines = [one.getMessage() for one in caplog.records if one.name == "blockrep.audit"]
    (line,) = [json.loads(one) for one in lines]
    assert (line["event"], line["operation"]) == ("refused", "join")
    assert "FileNotFoundError" in caplog.text, "the server's log has it all"


def renewal_of(directory: Path) -> dict[str, Any]:
    key = serialization.load_pem_private_key((directory / "origin.key").read_bytes(), None)
    certificate = (directory / "origin.pem").read_bytes()
    return {"want": "renew", "certificate": certificate, "request": request_of(key)}


async def test_who_has_no_rule_any_more_is_not_renewed(
    directory: Path, invitations: Invitations
) -> None:
    asked: list[str] = []

    def knows(identity: str) -> bool:
        asked.append(identity)
        return False

    with pytest.raises(RefusedError, match="no rule"):
        await answer(desk_of(directory, invitations, knows=knows), renewal_of(directory))
    assert asked == ["origin"]
    assert len(list((directory / "issued").iterdir())) == 1


async def test_renewed_in_the_last_month_only(directory: Path, invitations: Invitations) -> None:
    (directory / "origin.pem").unlink()
    (directory / "origin.key").unlink()
    issue(directory, "origin", [Role.CLIENT], days=90, now=NOW)
    request = renewal_of(directory)
    day = dt.timedelta(days=1)
    with pytest.raises(RefusedError, match=f"from {NOW + 60 * day:%Y-%m-%d}"):
        await answer(desk_of(directory, invitations, NOW + 59 * day), request)
    first = await answer(desk_of(directory, invitations, NOW + 61 * day), request)
    # The answer may have been lost; asking often makes no more of them.
    assert await answer(desk_of(directory, invitations, NOW + 62 * day), request) == first
    assert len(list((directory / "issued").iterdir())) == 3


async def test_any_list_that_the_server_goes_by_stops_a_renewal(
    directory: Path, invitations: Invitations
) -> None:
    revoke(directory, "origin")
    (directory / "ca.crl").rename(directory.parent / "other.crl")
    with pytest.raises(RefusedError, match="revoked"):
        await answer(desk_of(directory, invitations), renewal_of(directory))


async def test_a_revoked_key_gets_no_other_certificate(
    directory: Path, invitations: Invitations
) -> None:
    revoke(directory, "origin")
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    wish = {**renewal_of(directory), "want": "join", "invitation": identifier, "secret": secret}
    with pytest.raises(RefusedError, match="of this key was revoked"):
        await answer(desk_of(directory, invitations), wish)


async def test_the_event_loop_waits_for_no_disk(
    directory: Path, invitations: Invitations, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier, secret = invitations.create("alpha", 30, HOUR, NOW)
    request = request_of(ec.generate_private_key(ec.SECP256R1()))
    threads: list[threading.Thread] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        threads.append(threading.current_thread())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    wish = {"want": "join", "invitation": identifier, "secret": secret, "request": request}
    await answer(desk_of(directory, invitations), wish)
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (None, "nothing was asked for within 0.01 seconds"),
        (b"\xff" * 100, "a message of 4294967295 bytes"),
        (b"", "the connection ended"),
    ],
    ids=["silence", "nonsense", "end"],
)
async def test_who_asks_for_nothing_is_not_waited_for_and_is_on_record(
    directory: Path,
    invitations: Invitations,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: bytes | None,
    what: str,
) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    monkeypatch.setattr("blockrep.server.joining._SECONDS", 0.01)
    client, server = memory_pair()
    serving = asyncio.create_task(desk_of(directory, invitations).serve(server))
    if said:
        await client.send([said])
    elif said is not None:
        await client.close()
    await asyncio.wait_for(serving, 10)
    client.abort()
    (line,) = [json.loads(one.getMessage()) for one in caplog.records]
    assert (line["event"], line["operation"], line["what"]) == ("refused", "join", what)


async def test_everybody_may_know_the_authority(directory: Path, invitations: Invitations) -> None:
    told = await answer(desk_of(directory, invitations), {"want": "authority"})
    assert told["authority"] == (directory / "ca.pem").read_bytes()
