"""list shows snapshots newest first, each with its base and its age."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blockrep.cli.commands.list import table
from blockrep.cli.main import main
from blockrep.model.snapshots import Snapshot


def snapshot(sequence: int, *, committed: bool = True) -> Snapshot:
    return Snapshot(
        f"{sequence}" * 32, "a" * 32, sequence, 1000, 1 << 30, committed, f"br_{sequence}", "t"
    )


def test_the_newest_comes_first_with_its_base() -> None:
    heading, newest, oldest = table([snapshot(1), snapshot(2, committed=False)], 1000 + 7200)
    assert heading.split() == ["#", "ID", "BASE", "SIZE", "ALLOCATED", "AGE", "STATE", "NAME"]
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
    ]
    assert oldest.split() == ["1", "11111111", "-", "1.0", "GiB", "-", "2", "h", "good", "br_1"]


def test_no_snapshots_are_told() -> None:
    assert table([], 0) == ["no snapshots"]


def test_a_local_volume_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    assert main(["list", str(image)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(image), "  no snapshots"]
    assert main(["list", str(image), "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="asks LVM, which needs root")
def test_a_host_without_lvm_volumes_lists_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["list", "--json"])
    output = capsys.readouterr()
    assert code in {0, 9, 11}
    assert code == 0 or json.loads(output.out)["event"] == "error"
