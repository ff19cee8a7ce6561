"""The receiver does what it was allowed to, in the order of the protocol, and records it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.errors import RefusedError
from blockrep.model.lineage import Wish
from blockrep.model.names import VolumeName
from support.hosts import MIB, Allowed, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    return hosts


def allowing(hosts: Hosts, **rules: bool) -> None:
    def allowed(_identity: str, volume: str, _operation: str) -> Allowed:
        return replace(Allowed(VolumeName(path=volume)), **rules)  # type: ignore[arg-type]

    hosts.allowed = allowed


async def test_a_client_that_may_not_create_creates_nothing(hosts: Hosts) -> None:
    allowing(hosts, create=False)
    with pytest.raises(RefusedError, match="may not create"):
        await hosts.push()
    assert not hosts.replica.exists()
    allowing(hosts, create=True)
    await hosts.push()
    allowing(hosts, create=False)
    hosts.change(0, 10)
    await hosts.push()
    assert hosts.equal()


async def test_a_client_that_may_not_adopt_leaves_the_volume_as_it_was(hosts: Hosts) -> None:
    hosts.replica.write_bytes(b"mine" * 1000)
    allowing(hosts, adopt=False)
    with pytest.raises(RefusedError, match="may not adopt"):
        await hosts.push(Wish(adopt=True))
    assert hosts.replica.read_bytes() == b"mine" * 1000


async def test_a_forced_push_is_on_record(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "blockrep.audit")
    await hosts.push()
    await hosts.push(Wish(full=True))
    recorded = [record.getMessage() for record in caplog.records if record.name == "blockrep.audit"]
    assert sum('"event": "committed"' in line for line in recorded) == 2
    assert sum('"event": "forced"' in line for line in recorded) == 1
