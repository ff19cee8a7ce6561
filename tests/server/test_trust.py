"""A revocation holds whatever else is wrong, and whatever was begun before it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from blockrep.certificates.authority import issue
from blockrep.certificates.describe import describe
from blockrep.certificates.invitations import Invitations
from blockrep.certificates.naming import Role
from blockrep.certificates.renewal import renew
from blockrep.certificates.revocation import revoke
from blockrep.errors import BlockrepError, ConfigurationError
from blockrep.server import trust as module
from blockrep.server.service import Service
from blockrep.server.trust import TrustInForce, read_trust
from blockrep.transport.joining import ask, open_join
from blockrep.transport.tls_listener import TlsListener
from support.listening import Listening, until
from support.virtual_time import run_virtual

Recorded = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Listening:
    return Listening(tmp_path, lambda: capsys.readouterr().out)


@pytest.fixture
async def listening(server: Listening) -> AsyncIterator[Listening]:
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Recorded:
    """Return what the audit log has of one event."""
    caplog.set_level("INFO", "blockrep")

    def found(event: str) -> list[dict[str, Any]]:
        lines = [one.getMessage() for one in caplog.records if one.name == "blockrep.audit"]
        return [line for line in map(json.loads, lines) if line["event"] == event]

    return found


async def welcome(server: Listening, name: str = "mallory") -> bytes:
    """Return what the server answers to a client that does nothing wrong."""
    client = server.handshake(name)
    await client.begin()
    return await client.finish()


async def reloaded(recorded: Recorded) -> bool:
    """Ask for a reload; return whether it was done."""
    before = len(recorded("reload"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: len(recorded("reload")) > before)
    return bool(recorded("reload")[-1]["done"])


async def test_a_handshake_that_was_held_open_does_not_outlive_the_revocation(
    listening: Listening, recorded: Recorded
) -> None:
    assert b"mallory" in await welcome(listening)
    held = listening.handshake()
    await held.begin()
    revoke(listening.certs, "mallory")
    assert await reloaded(recorded)
    assert b"was revoked" in await held.finish()


async def test_nobody_gets_in_once_the_command_that_revokes_has_ended(
    server: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look may be seconds away: whoever comes is judged by the list as it is."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 3600)
    await server.start()
    assert b"mallory" in await welcome(server)
    revoke(server.certs, "mallory")
    assert b"was revoked" in await welcome(server)
    await server.stop()


async def test_a_list_that_does_not_hold_as_a_whole_is_not_read_for_every_client(
    server: Listening, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it names is refused all the same."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 3600)
    issue(server.certs, "origin", [Role.CLIENT])
    await server.start()
    (server.certs / "localhost.key").unlink()
    revoke(server.certs, "mallory")
    read = Mock(wraps=module.read_trust)
    monkeypatch.setattr(module, "read_trust", read)
    for _ in range(3):
        assert b"was revoked" in await welcome(server)
    assert b"origin" in await welcome(server, "origin")
    assert read.call_count == 1
    assert len(recorded("revocation")) == 1
    await server.stop()


async def test_what_is_revoked_when_it_starts_is_revoked(
    server: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS refuses it already; the second look does not depend on that."""
    revoke(server.certs, "mallory")
    monkeypatch.setattr(ssl, "VERIFY_CRL_CHECK_LEAF", ssl.VerifyFlags(0))
    await server.start()
    assert b"was revoked" in await welcome(server)
    await server.stop()


async def test_who_is_refused_by_tls_is_on_record(server: Listening, recorded: Recorded) -> None:
    revoke(server.certs, "mallory")
    await server.start()
    with pytest.raises(ssl.SSLError, match="revoked"):
        await welcome(server)
    await server.stop()
    (line,) = recorded("refused")
    assert "is revoked" in line["what"]
    assert line["identity"] == "mallory"
    assert line["fingerprint"] == describe(server.certs / "mallory.pem").fingerprint


@pytest.mark.usefixtures("often")
async def test_a_fault_in_the_configuration_does_not_keep_a_revocation_off(
    listening: Listening, recorded: Recorded
) -> None:
    held = listening.handshake()
    await held.begin()
    listening.config.write_text("[server]\nmax_session = 5\n")
    assert not await reloaded(recorded)
    revoke(listening.certs, "mallory")
    await until(lambda: bool(recorded("revocation")))
    (line,) = recorded("revocation")
    assert (line["done"], line["serials"]) == (True, 1)
    assert b"was revoked" in await held.finish()


@pytest.mark.usefixtures("often")
async def test_what_cannot_be_read_yet_is_told_once_and_tried_again(
    listening: Listening, recorded: Recorded
) -> None:
    """The list comes while the server's own files are being replaced: it holds all the same."""
    issue(listening.certs, "origin", [Role.CLIENT])
    held = listening.handshake()
    await held.begin()
    key = listening.certs / "localhost.key"
    kept = key.rename(key.with_suffix(".old"))
    revoke(listening.certs, "mallory")
    await until(lambda: bool(recorded("revocation")))
    assert b"was revoked" in await held.finish()
    await asyncio.sleep(0.1)
    kept.rename(key)
    await until(lambda: len(recorded("revocation")) > 1)
    assert [line["done"] for line in recorded("revocation")] == [False, True]
    assert b"origin" in await welcome(listening, "origin")


@pytest.mark.usefixtures("often")
async def test_a_damaged_list_takes_nothing_back(listening: Listening, recorded: Recorded) -> None:
    issue(listening.certs, "origin", [Role.CLIENT])
    held = listening.handshake()
    await held.begin()
    revoke(listening.certs, "mallory")
    await until(lambda: len(recorded("revocation")) == 1)
    (listening.certs / "ca.crl").write_text("damaged")
    await until(lambda: len(recorded("revocation")) == 2)
    assert "revocation list" in recorded("revocation")[1]["what"]
    assert b"was revoked" in await held.finish()
    assert b"origin" in await welcome(listening, "origin")


@pytest.mark.usefixtures("often")
async def test_the_list_of_the_settings_that_hold_is_followed(
    listening: Listening, recorded: Recorded
) -> None:
    issue(listening.certs, "origin", [Role.CLIENT])
    revoke(listening.certs, "origin")
    await until(lambda: len(recorded("revocation")) == 1)
    elsewhere = listening.certs.parent / "list.pem"
    elsewhere.write_bytes((listening.certs / "ca.crl").read_bytes())
    listening.configure(f"crl = '{elsewhere}'\n")
    assert await reloaded(recorded)
    revoke(listening.certs, "mallory")
    await asyncio.sleep(0.1)
    assert b"mallory" in await welcome(listening), "that list is not used any more"
    held = listening.handshake()
    await held.begin()
    elsewhere.write_bytes((listening.certs / "ca.crl").read_bytes())
    await until(lambda: len(recorded("revocation")) == 2)
    assert recorded("revocation")[1]["serials"] == 2
    assert b"was revoked" in await held.finish()


async def certificate_at_the_join_door(server: Listening) -> bytes:
    """Return what the server shows to a host that has no certificate. Raises if none may come."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(server.certs / "ca.pem")
    door = await open_join("127.0.0.1", server.port, context, "localhost", 10)
    try:
        await ask(door, {"want": "authority"})
        return door._tls.getpeercert(binary_form=True) or b""
    finally:
        await door.close()


async def test_the_join_door_has_the_certificate_that_holds(
    listening: Listening, recorded: Recorded
) -> None:
    Invitations(listening.load().storage.state_directory).create(
        "alpha", 30, dt.timedelta(hours=1), dt.datetime.now(dt.UTC)
    )
    before = await certificate_at_the_join_door(listening)
    renew(listening.certs, "localhost", 30)
    assert await certificate_at_the_join_door(listening) == before
    assert await reloaded(recorded)
    assert await certificate_at_the_join_door(listening) != before


async def test_an_authority_that_comes_later_opens_the_door_at_a_reload(
    server: Listening, recorded: Recorded
) -> None:
    Invitations(server.load().storage.state_directory).create(
        "alpha", 30, dt.timedelta(hours=1), dt.datetime.now(dt.UTC)
    )
    key = server.certs / "ca.key"
    away = key.rename(server.certs.parent / "ca.key")
    await server.start()
    with pytest.raises(BlockrepError):
        await certificate_at_the_join_door(server)
    away.rename(key)
    assert await reloaded(recorded)
    assert await certificate_at_the_join_door(server)
    await server.stop()


async def test_a_defect_does_not_end_the_watch(
    server: Listening, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    trust = in_force(server)
    monkeypatch.setattr(trust, "_follow", lambda _audit: 1 / 0)
    watching = asyncio.create_task(trust.watch(lambda *_: None))
    await until(lambda: caplog.text.count("ZeroDivisionError") > 1)
    watching.cancel()


class Used:
    """What a listener and a service were given."""

    def use(self, *_: object) -> None: ...

    def revoke(self, _serials: object) -> None: ...


def in_force(server: Listening) -> TrustInForce:
    used = Used()
    trust = read_trust(server.load())
    return TrustInForce(cast("TlsListener", used), cast("Service", used), trust)


def test_the_end_of_the_servers_certificate_is_told_every_day(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    for suffix in ("pem", "key"):
        (server.certs / f"localhost.{suffix}").unlink()
    issue(server.certs, "localhost", [Role.SERVER], days=3)

    async def scenario() -> None:
        warning = asyncio.create_task(in_force(server).warn_daily())
        await asyncio.sleep(3600)
        assert "expires in" not in caplog.text
        await asyncio.sleep(86400)
        assert caplog.text.count("expires in") == 1
        warning.cancel()

    run_virtual(scenario())


def give_server(server: Listening, roles: list[Role], now: dt.datetime | None = None) -> None:
    for suffix in ("pem", "key"):
        (server.certs / f"localhost.{suffix}").unlink()
    issue(server.certs, "localhost", roles, days=3, now=now)


def test_a_certificate_for_clients_alone_serves_nobody(server: Listening) -> None:
    give_server(server, [Role.CLIENT])
    with pytest.raises(ConfigurationError, match=r"clients only.*issue localhost --server"):
        read_trust(server.load())
    give_server(server, [Role.CLIENT, Role.SERVER])
    read_trust(server.load())


def test_an_expired_certificate_is_an_error_in_the_log(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    give_server(server, [Role.SERVER], dt.datetime.now(dt.UTC) - dt.timedelta(days=5))
    read_trust(server.load()).warn_of_expiry()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "blockrep certs renew localhost" in record.getMessage()
    assert record.getMessage().endswith("every client refuses this server")
