"""Pulls by real processes: the same transfers with the sides exchanged, the same promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import MIB, Site
from .test_push_images import assert_refused, sent


@pytest.fixture
def pulling(site: Site) -> Iterator[Site]:
    """The server has the volume, the client gets the replica."""
    site.server_source.write_bytes(site.source.read_bytes())
    with site.server(rules(site)):
        yield site


def rules(site: Site, operations: str = "'pull', 'verify', 'list'") -> str:
    return (
        f"[clients.origin]\ntargets = [{{ name = '{site.server_source}',"
        f" operations = [{operations}] }}]\n"
    )


def command(site: Site, *options: str) -> list[str]:
    url = f"tls://localhost:{site.port}/{site.server_source}"
    return site.command("pull", url, str(site.local_replica), *options)


def pull(site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(site, *options), capture_output=True, text=True, check=False, timeout=100
    )


def pulled(site: Site, *options: str) -> list[dict[str, Any]]:
    done = pull(site, "--json", *options)
    assert done.returncode == 0, done.stderr
    assert site.local_replica.read_bytes() == site.server_source.read_bytes()
    return [json.loads(line) for line in done.stdout.splitlines()]


def change(site: Site, offset_bytes: int, size_bytes: int) -> None:
    with site.server_source.open("r+b") as file:
        file.seek(offset_bytes)
        file.write(site.random.randbytes(size_bytes))


def test_full_then_incremental_then_nothing(pulling: Site) -> None:
    events = pulled(pulling)
    assert sent(events) >= 8 * MIB
    names = [one["event"] for one in events]
    assert names[0] == "connected"
    assert {"decided", "planned", "progress", "committed"} <= set(names)
    change(pulling, 3 * MIB, 10_000)
    assert 10_000 <= sent(pulled(pulling)) < 300_000
    assert sent(pulled(pulling, "--compress")) == 0
    assert "pulled" in pulling.log()


def test_a_killed_pull_resumes(pulling: Site) -> None:
    argv = command(pulling, "--json", "--bwlimit", "4M")
    durable = 0
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            durable = max(durable, json.loads(line).get("durable_bytes", 0))
            if durable >= 2 * MIB:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert durable >= 2 * MIB
    assert not pulling.local_replica.exists()
    events = pulled(pulling)
    assert sent(events) <= 8 * MIB - durable + MIB


def test_what_the_user_did_not_ask_for_is_not_done(pulling: Site) -> None:
    pulling.local_replica.write_bytes(bytes(8 * MIB))
    assert_refused(pull(pulling), 10, "--adopt")
    assert pulling.local_replica.read_bytes() == bytes(8 * MIB)
    assert sent(pulled(pulling, "--adopt")) >= 8 * MIB
    with pulling.server_source.open("r+b") as file:
        file.truncate(4 * MIB)
    assert_refused(pull(pulling), 10, "--shrink")
    pulled(pulling, "--shrink")
    pulled(pulling, "--full")


def test_a_pull_needs_its_own_right(site: Site) -> None:
    site.server_source.write_bytes(bytes(MIB))
    for text in ("", rules(site, "'push', 'verify', 'list'"), "[clients.other]\n"):
        with site.server(text):
            refused = pull(site)
            assert_refused(refused, 4, "pull is not allowed, or there is no such volume")
            assert not site.local_replica.exists()


def test_names_for_replicas_are_not_endless(pulling: Site) -> None:
    for name in ("one", "two", "two"):
        argv = command(pulling)
        argv[argv.index(str(pulling.local_replica))] = str(pulling.folder / "local" / name)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
    assert_refused(pull(pulling), 4, "snapshots are held for 2 other targets", "max_pull_targets")
    assert not pulling.local_replica.exists()
    assert '"operation": "pull", "what": "snapshots are held' in pulling.log()
