"""One right to pull fills nobody's pool: snapshots are held for so many targets of a client."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import BusyError, RefusedError
from blockrep.model.snapshots import Snapshot
from blockrep.server.pulls import BoundedSource
from blockrep.storage.memory import MemoryHost, MemorySource
from support.memory_server import SIZE_BYTES, MemoryServer
from support.virtual_time import run_virtual

ALL = frozenset(OPERATIONS)


class Case:
    """A volume, and what was put on record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = MemoryHost("origin")
        self.host.create_volume("vg/a", SIZE_BYTES)
        self.audit: list[Any] = []
        self.made = 0

    def source(
        self, identity: str, most_targets: int = 2, wait_seconds: float = 0
    ) -> BoundedSource:
        return BoundedSource(
            MemorySource(self.host, "vg/a"),
            "mine/a",
            identity,
            most_targets,
            (self.folder, f"snapshots of vg/a for {identity}"),
            wait_seconds,
            lambda *line: self.audit.append(line),
        )

    def make(self, source: BoundedSource, target: str) -> Snapshot:
        self.made += 1
        return source.create_snapshot("1" * 32, f"{self.made:032x}", self.made, target, 0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_another_target_is_refused_before_a_snapshot_is_made(case: Case) -> None:
    source = case.source("alpha")
    for target in ("one", "two", "two"):
        case.make(source, f"pull by alpha: {target}")
    with pytest.raises(RefusedError, match="2 other targets of this client: one, two") as caught:
        case.make(source, "pull by alpha: three")
    assert caught.value.where == "mine/a", "as the client calls it"
    assert len(source.snapshots()) == 3
    ((event, fields),) = case.audit
    assert event == "refused"
    assert (fields["volume"], fields["operation"]) == ("mine/a", "pull")


def test_others_do_not_count(case: Case) -> None:
    """Nor does one whose name begins like ours, nor a push from this host."""
    for identity in ("alpha2", "al", "alpha.x", "beta"):
        for target in ("one", "two"):
            case.make(case.source(identity), f"pull by {identity}: {target}")
    case.make(case.source("alpha"), "tls://replica:8733/vg/a")
    for target in ("one", "two"):
        case.make(case.source("alpha"), f"pull by alpha: {target}")
    with pytest.raises(RefusedError):
        case.make(case.source("alpha", most_targets=1), "pull by alpha: one")
    case.make(case.source("alpha", most_targets=3), "pull by alpha: three")


def test_one_target_gathers_no_endless_number_of_snapshots(case: Case) -> None:
    """A client may claim to hold what it was sent, and never let a transfer come to its end."""
    source = case.source("alpha")
    for _ in range(8):
        case.make(source, "pull by alpha: one")
    with pytest.raises(RefusedError, match="8 snapshots are held for this target"):
        case.make(source, "pull by alpha: one")
    assert len(source.snapshots()) == 8


def test_counting_and_making_are_one_act(case: Case) -> None:
    """Sessions of one client that come at the same time do not pass each other."""
    refused: list[RefusedError] = []

    def pull(number: int) -> None:
        try:
            case.make(case.source("alpha", wait_seconds=30), f"pull by alpha: {number}")
        except RefusedError as error:
            refused.append(error)

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 6
    with case.source("alpha")._alone(), pytest.raises(BusyError, match="pull by alpha"):
        case.make(case.source("alpha"), "pull by alpha: 0")


def test_by_the_rule_of_a_client_and_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blockrep.audit")
    rules = {
        "alpha": (TargetRule("vg/a", "vg/a", ALL),),
        "beta": (TargetRule("vg/a", "vg/a", ALL, max_pull_targets=1),),
    }

    async def scenario() -> None:
        server = MemoryServer(tmp_path, AccessPolicy(rules, None))
        await server.run("alpha", "push", "vg/a")
        for identity, allowed in (("alpha", 2), ("beta", 1)):
            for number in range(allowed):
                for _ in range(2):
                    target = f"/{identity}-{number}"
                    await server.run(identity, "pull", "vg/a", target=target)
            for number in range(20):
                with pytest.raises(RefusedError, match="max_pull_targets"):
                    await server.run(identity, "pull", "vg/a", target=f"/{identity}-x-{number}")
        await server.settle()
        held = MemorySource(server.replica, "vg/a").snapshots()
        assert len(held) == 3

    run_virtual(scenario())
    lines = [json.loads(one.getMessage()) for one in caplog.records if "audit" in one.name]
    refused = [line for line in lines if line["event"] == "refused"]
    assert len(refused) == 40
    assert {line["operation"] for line in refused} == {"pull"}
