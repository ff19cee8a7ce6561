"""delta tells what a push would send and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blockrep.cli.main import main


def test_without_a_snapshot_everything_would_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"x" * 200_000)
    before = sorted(tmp_path.rglob("*"))
    assert main(["delta", str(image)]) == 0
    assert "everything" in capsys.readouterr().out
    assert main(["delta", str(image), "--json", "--extents"]) == 0
    *extents, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(one["length_bytes"] for one in extents) == summary["data_bytes"] >= 200_000
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_volume_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delta", str(tmp_path / "missing.img")]) == 10
    assert "missing.img" in capsys.readouterr().err
