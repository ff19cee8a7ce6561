"""Pairing by real processes: invited, joined, pushing, renewed, revoked in the middle of a push."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.describe import describe
from blockrep.certificates.naming import Role

from .conftest import MIB, Site
from .test_push_images import assert_refused


@pytest.fixture
def joining(site: Site) -> Iterator[Site]:
    """The server holds the authority; the client has nothing."""
    shutil.rmtree(site.folder / "client" / "certs")
    shutil.rmtree(site.folder / "server" / "certs")
    shutil.copytree(site.folder / "authority", site.folder / "server" / "certs")
    for name in ("origin.pem", "origin.key"):
        (site.folder / "server" / "certs" / name).unlink()
    with site.server():
        yield site


def server_side(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*site.command(*words)[:-1], str(site.config("server"))]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def invite(site: Site, *options: str) -> str:
    done = server_side(
        site, "peer", "invite", "alpha", "--host", f"localhost:{site.port}", *options
    )
    assert done.returncode == 0, done.stderr
    (token,) = done.stdout.split()
    return token


def test_a_token_is_all_that_a_new_host_needs(joining: Site) -> None:
    token = invite(joining)
    assert "alpha" not in token
    done = joining.run("peer", "join", token)
    assert done.returncode == 0, done.stderr
    certificates = joining.folder / "client" / "certs"
    assert sorted(path.name for path in certificates.iterdir()) == [
        "alpha.key",
        "alpha.pem",
        "ca.pem",
    ]
    assert (certificates / "alpha.key").stat().st_mode & 0o777 == 0o600
    info = describe(certificates / "alpha.pem")
    assert info.names == ("alpha",)
    assert info.roles == {Role.CLIENT}
    assert 88 <= info.days_left(dt.datetime.now(dt.UTC)) <= 90
    events = joining.pushed()
    assert events[0]["identity"] == "alpha"
    assert joining.equal()
    (issued,) = [line for line in joining.log().splitlines() if '"event": "issued"' in line]
    assert '"fingerprint": ""' in issued, "it had no certificate yet"
    again = joining.run("peer", "join", token, "--directory", str(joining.folder / "other"))
    assert_refused(again, 4, "was used")
    assert not (joining.folder / "other" / "alpha.pem").exists()


def test_renewed_by_the_certificate_itself(joining: Site) -> None:
    assert joining.run("peer", "join", invite(joining, "--days", "20")).returncode == 0
    file = joining.folder / "client" / "certs" / "alpha.pem"
    before = describe(file)
    done = joining.run("peer", "renew", f"localhost:{joining.port}")
    assert done.returncode == 0, done.stderr
    after = describe(file)
    assert after.serial != before.serial
    assert after.names == before.names
    joining.pushed()
    assert joining.equal()


def test_a_certificate_in_another_folder_is_renewed(joining: Site) -> None:
    folder = joining.folder / "other"
    words = ["--directory", str(folder)]
    assert joining.run("peer", "join", invite(joining, "--days", "20"), *words).returncode == 0
    before = describe(folder / "alpha.pem")
    done = joining.run("peer", "renew", f"localhost:{joining.port}", *words)
    assert done.returncode == 0, done.stderr
    assert describe(folder / "alpha.pem").serial != before.serial


def test_a_new_certificate_is_not_renewed(joining: Site) -> None:
    assert joining.run("peer", "join", invite(joining)).returncode == 0
    refused = joining.run("peer", "renew", f"localhost:{joining.port}")
    assert_refused(refused, 4, "valid for 89 more days", "renew it from")


def test_nobody_without_a_certificate_gets_in_without_an_invitation(joining: Site) -> None:
    token = invite(joining, "--minutes", "1")
    for path in (joining.folder / "server" / "state" / "invitations").iterdir():
        path.write_text(path.read_text().replace('"expires": 1', '"expires": 0'))
    refused = joining.run("peer", "join", token)
    assert refused.returncode in {3, 4, 7}, refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (joining.folder / "client" / "certs" / "alpha.pem").exists()


def test_another_server_is_not_told_the_secret(joining: Site, tmp_path: Path) -> None:
    token = invite(joining)
    certificates = joining.folder / "server" / "certs"
    shutil.move(certificates, tmp_path / "real")
    create_authority(certificates)
    issue(certificates, "localhost", [Role.SERVER])
    port = joining.port
    # Somebody in between, with an authority of his own and an invitation of his own.
    with joining.server(listen="127.0.0.1:0"):
        invite(joining)
        impostor = joining.port
        swapped = joining.run("peer", "join", moved(token, impostor))
        assert_refused(swapped, 8, "another authority", "nothing secret was sent")
    joining.port = port


def moved(token: str, port: int) -> str:
    """Return the token with another port: what a man in the middle makes of the network."""
    from dataclasses import replace

    from blockrep.certificates.invitations import Token

    return replace(Token.decode(token), port=port).encode()


def test_revoked_in_the_middle_of_a_push(joining: Site) -> None:
    assert joining.run("peer", "join", invite(joining)).returncode == 0
    command = joining.command(
        "push", str(joining.source), joining.target, "--json", "--bwlimit", "2M"
    )
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as push:
        assert push.stdout is not None
        for line in push.stdout:
            if json.loads(line).get("durable_bytes", 0) >= MIB:
                done = server_side(joining, "certs", "revoke", "alpha")
                assert done.returncode == 0, done.stderr
                break
        told = json.loads(push.stdout.read().splitlines()[-1])
        assert push.wait(60) == 4
    assert "was revoked" in told["what"]
    assert_refused(joining.push(), 4, "revoked")
    assert_refused(joining.run("peer", "renew", f"localhost:{joining.port}"), 4)


def test_a_second_certificate_for_a_name_needs_the_first_revoked(joining: Site) -> None:
    assert joining.run("peer", "join", invite(joining)).returncode == 0
    refused = server_side(joining, "peer", "invite", "alpha")
    assert_refused(refused, 3, "has a certificate already", "--replace")


def test_a_certificate_that_never_arrived_is_replaced(joining: Site) -> None:
    """Nobody has its key, and the name is not lost for that."""
    elsewhere = joining.folder / "other"
    done = joining.run("peer", "join", invite(joining), "--directory", str(elsewhere))
    assert done.returncode == 0, done.stderr
    done = joining.run("peer", "join", invite(joining, "--replace"))
    assert done.returncode == 0, done.stderr
    joining.pushed()
    assert joining.equal()
    shutil.rmtree(joining.folder / "client" / "certs")
    shutil.move(elsewhere, joining.folder / "client" / "certs")
    assert_refused(joining.push(), 4, "revoked")


@pytest.mark.parametrize("token", ["", "brp1-", "brp1-AAAA", "x" * 5000, "brp1-\x1b[2J"])
def test_what_is_no_token(joining: Site, token: str) -> None:
    refused = joining.run("peer", "join", token)
    assert_refused(refused, 2, "is not a whole token")
    assert "\x1b" not in refused.stderr
