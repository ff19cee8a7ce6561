"""list shows snapshots newest first: each with its base, its age, and what it is held for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from blockrep.cli.commands.list import table
from blockrep.cli.main import main
from blockrep.client import operations
from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm import listing
from support.hosts import MIB, Hosts


def snapshot(sequence: int, *, committed: bool = True) -> Snapshot:
    return Snapshot(
        f"{sequence}" * 32, "a" * 32, sequence, 1000, 1 << 30, committed, f"br_{sequence}", "t"
    )


def test_the_newest_comes_first_with_what_it_is_held_for() -> None:
    heading, newest, oldest = table([snapshot(1), snapshot(2, committed=False)], 1000 + 7200)
    words = ["#", "ID", "BASE", "SIZE", "ALLOCATED", "AGE", "STATE", "NAME", "TARGET"]
    assert heading.split() == words
    assert newest.split() == [
        "2",
        "22222222",
        "11111111",
        "1.0",
        "GiB",
        "-",
        "2",
        "h",
        "pending",
        "br_2",
        "t",
    ]
    assert oldest.split() == [
        "1",
        "11111111",
        "-",
        "1.0",
        "GiB",
        "-",
        "2",
        "h",
        "good",
        "br_1",
        "t",
    ]


@pytest.mark.parametrize("other", [{"lineage": "b" * 32}, {"target": "other"}, {"sequence": 3}])
def test_only_the_one_before_it_of_its_lineage_is_its_base(other: dict[str, Any]) -> None:
    """Snapshots for other targets have nothing to do with it, and what is gone is not made up."""
    lines = table([snapshot(1), dataclasses.replace(snapshot(2), **other)], 1000)[1:]
    assert [line.split()[2] for line in lines] == ["-", "-"]


def test_what_a_replica_holds_is_held_for_nobody() -> None:
    heading, good = table([dataclasses.replace(snapshot(1), target="")], 1000)
    assert heading.split()[-1] == "NAME"
    assert good.split()[-1] == "br_1"


def test_no_snapshots_are_told() -> None:
    assert table([], 0) == ["no snapshots"]


def test_a_local_volume_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    assert main(["list", str(image)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(image), "  no snapshots"]
    assert main(["list", str(image), "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_a_replica_is_listed_on_its_own_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    asyncio.run(hosts.push())
    assert main(["list", str(hosts.replica)]) == 0
    title, _, good = capsys.readouterr().out.splitlines()
    assert title == f"{hosts.replica} (replica)"
    assert good.split()[0] == "1"
    assert " good " in good
    assert main(["list", str(hosts.source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["volume"] == str(hosts.source)


def test_a_volume_that_is_both_is_listed_as_both(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def list_source(_context: object, _volume: object) -> list[Snapshot]:
        return [snapshot(2)]

    held = [("vg/a (source)", [snapshot(2)]), ("vg/a (replica)", [snapshot(1)])]
    monkeypatch.setattr(operations, "list_source", list_source)
    monkeypatch.setattr(listing, "list_host", lambda _settings: iter(held))
    assert main(["list", "vg/a", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["volume"], one["sequence"]) for one in listed] == [
        ("vg/a", 2),
        ("vg/a (replica)", 1),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="asks LVM, which needs root")
def test_a_host_without_lvm_volumes_lists_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["list", "--json"])
    output = capsys.readouterr()
    assert code in {0, 9, 11}
    assert code == 0 or json.loads(output.out)["event"] == "error"
