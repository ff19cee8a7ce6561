"""Pushes through a real sshd: forced commands, killed carriers, a server behind a tunnel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sshd import Sshd, program, running_sshd

from .conftest import MIB, Site
from .test_push_images import assert_refused, sent


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    with running_sshd(folder) as server:
        yield server


@pytest.fixture(params=["library", "openssh"])
def ssh(request: pytest.FixtureRequest, site: Site, sshd: Sshd) -> Site:
    """Two hosts with SSH between them, and nothing that listens but sshd."""
    server = program(sshd.folder, "blockrep-server", "server")
    site.configure_server()
    client = site.config("client")
    command = f"{server} --config {site.config('server')}"
    text = f"[ssh]\nremote_command = '{command}'\nconfig = '{sshd.config}'\n"
    if request.param == "openssh":
        text += f"command = '{' '.join(sshd.openssh)}'\n"
    client.write_text(client.read_text() + text)
    site.url = sshd.url
    return site


def test_full_then_incremental_then_verified(ssh: Site) -> None:
    assert sent(ssh.pushed()) >= 8 * MIB
    assert ssh.equal()
    ssh.change(3 * MIB, 10_000)
    assert 10_000 <= sent(ssh.pushed()) < 300_000
    assert ssh.equal()
    assert ssh.run("verify", str(ssh.source), ssh.target).returncode == 0
    listed = ssh.run("list", ssh.target)
    assert "replica.img" in listed.stdout


def test_a_killed_ssh_is_a_lost_connection_and_resumes(ssh: Site, sshd: Sshd) -> None:
    command = ssh.command("push", str(ssh.source), ssh.target, "--json", "--bwlimit", "4M")
    durable = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as push:
        assert push.stdout is not None
        for line in push.stdout:
            durable = max(durable, json.loads(line).get("durable_bytes", 0))
            if durable >= 2 * MIB:
                break
        kill_sessions(sshd)
        push.stdout.read()
        assert push.wait(60) == 7
    events = ssh.pushed()
    (resumed,) = [one for one in events if one["event"] == "resumed"]
    assert resumed["done_bytes"] >= durable
    assert sent(events) <= (8 * MIB - resumed["done_bytes"]) * 1.01
    assert ssh.equal()


def kill_sessions(sshd: Sshd) -> None:
    """Kill the sshd processes of running sessions, not the one that listens."""
    me = os.getpid()
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().decode(errors="replace")
            listener = (Path("/proc") / str(parent) / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if parent != me and "sshd" in words and str(sshd.folder) in listener:
            os.kill(int(path.name), signal.SIGKILL)


def test_a_forced_command_ignores_what_the_client_asks_for(ssh: Site, sshd: Sshd) -> None:
    server = sshd.folder / "blockrep-server"
    forced = f'command="{server} --stdio --as alpha --config {ssh.config("server")}",restrict'
    sshd.allow(forced)
    ssh.configure_server(
        f"[clients.alpha]\ntargets = [{{ name = '{ssh.replica}' }}]\n[clients.beta]\n"
    )
    client = ssh.config("client")
    touched = sshd.folder / "touched"
    plain = client.read_text()
    for hostile in (f"touch {touched}; ", "blockrep-server --as beta ", "/bin/sh -i "):
        lines = [line for line in plain.splitlines() if not line.startswith("remote_command")]
        client.write_text("\n".join([*lines, f'remote_command = "{hostile}"', ""]))
        ssh.pushed()
        assert ssh.equal()
        assert not touched.exists()
    other = f"{ssh.url}/{ssh.images}/other.img"
    assert_refused(ssh.run("push", str(ssh.source), other), 4, "not allowed")
    outside = f"{ssh.url}/{ssh.folder}/outside.img"
    assert_refused(ssh.run("push", str(ssh.source), outside), 4, "not allowed")
    assert not (ssh.folder / "outside.img").exists()


def test_a_locked_down_key_without_rules_opens_nothing(ssh: Site, sshd: Sshd) -> None:
    """Who forgot the rules has not given the key everything."""
    server = sshd.folder / "blockrep-server"
    sshd.allow(f'command="{server} --stdio --as alpha --config {ssh.config("server")}",restrict')
    ssh.replica.write_bytes(b"precious" * 1024)
    for options in ([], ["--adopt"]):
        assert_refused(ssh.push(*options), 3, "[clients.alpha]", "blockrep authorize alpha")
    assert ssh.replica.read_bytes() == b"precious" * 1024
    assert_refused(ssh.run("list", ssh.target), 3, "[clients.alpha]")


def test_a_name_that_is_no_name_starts_nothing(site: Site, sshd: Sshd) -> None:
    server = program(sshd.folder, "blockrep-server", "server")
    for name in ("../x", "-rf", "@tag", "", "a" * 4096, "a\nb", "ALPHA"):
        done = subprocess.run(
            [server, "--stdio", f"--as={name}"], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2, name
        assert "not a client's name" in done.stderr
    assert site.folder.is_dir()


def test_a_terminal_is_no_session(site: Site, sshd: Sshd) -> None:
    server = program(sshd.folder, "blockrep-server", "server")
    site.configure_server()
    done = subprocess.run(
        [server, "--stdio", "--config", str(site.config("server"))],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard input and output must be its pipes" in done.stderr


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_a_running_server_behind_a_tunnel(ssh: Site, sshd: Sshd, kind: str) -> None:
    path = sshd.folder / "s.sock"
    with ssh.server(listen=f"unix:{path}" if kind == "unix" else "127.0.0.1:0"):
        there = f"unix:{path}" if kind == "unix" else f"127.0.0.1:{ssh.port}"
        client = ssh.config("client")
        # The server's certificate is of "localhost".
        client.write_text(
            client.read_text() + "[hosts.'127.0.0.1']\naddress = 'localhost'\n"
            "server_name = 'localhost'\n"
        )
        events = ssh.pushed("--ssh-forward", there)
        assert sent(events) >= 8 * MIB
        assert ssh.equal()
    assert not list(Path("/tmp").glob("blockrep-*/ssh"))


def test_an_unknown_host_key_is_told_in_one_line(ssh: Site, sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    assert_refused(ssh.push(), 3, "not known", "nothing was sent")


def test_a_signal_ends_a_push_and_its_carrier(ssh: Site, sshd: Sshd) -> None:
    command = ssh.command("push", str(ssh.source), ssh.target, "--json", "--bwlimit", "4M")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as push:
        assert push.stdout is not None
        for line in push.stdout:
            if json.loads(line).get("durable_bytes", 0) >= MIB:
                push.send_signal(signal.SIGINT)
                break
        push.stdout.read()
        assert push.wait(60) == 130
    deadline = time.monotonic() + 20
    while _carriers(sshd) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _carriers(sshd)
    ssh.pushed()
    assert ssh.equal()


def _carriers(sshd: Sshd) -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0].endswith("ssh") and str(sshd.config) in words:
                found.append(path.name)
    return found


def test_asyncssh_is_not_loaded_for_tls() -> None:
    script = "import sys; import blockrep.cli.graph; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
