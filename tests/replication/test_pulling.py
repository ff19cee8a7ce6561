"""A pull is a push that the server makes: held for the puller, bounded by his rule, on record."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockrep.client.pulling import PullOptions, pull
from blockrep.model.names import Target, VolumeName
from blockrep.storage.factory import open_source
from support.hosts import LIMITS, MIB, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    return hosts


@contextlib.asynccontextmanager
async def pulled(hosts: Hosts) -> AsyncIterator[None]:
    async with hosts.context() as context:
        source = Target("tls", "origin", 8733, VolumeName(path=str(hosts.source)))
        target = VolumeName(path=str(hosts.replica))
        await pull(context, source, target, PullOptions(LIMITS), hosts.events.append)
    yield


async def test_snapshots_are_held_for_the_puller(hosts: Hosts) -> None:
    async with pulled(hosts):
        source = open_source(VolumeName(path=str(hosts.source)), hosts._settings("server"))
        (snapshot,) = source.snapshots()
    assert snapshot.target.startswith("pull by ")
    assert snapshot.target.endswith(str(hosts.replica))
    assert snapshot.committed


async def test_it_is_on_record(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    async with pulled(hosts):
        assert '"event": "pulled"' in caplog.text
