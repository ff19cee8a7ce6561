"""prune tells what was dropped and never asks for less than one."""

from __future__ import annotations

import argparse
import json

import pytest

from blockrep.cli.commands.prune import show
from blockrep.cli.main import main
from blockrep.protocol.messages import Pruned

TARGET = "tls://replica:8733/vg/lv"


def shown(capsys: pytest.CaptureFixture[str], kept: int = 3, **options: bool) -> str:
    flags = {"json": False, "quiet": False, **options}
    show(Pruned(2, kept), TARGET, argparse.Namespace(**flags))
    return capsys.readouterr().out


def test_people_and_programs_are_told_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == f"{TARGET}: dropped 2, kept 3 snapshots\n"
    assert shown(capsys, kept=1) == f"{TARGET}: dropped 2, kept 1 snapshot\n"
    assert json.loads(shown(capsys, json=True)) == {
        "event": "pruned",
        "target": TARGET,
        "pruned_count": 2,
        "kept_count": 3,
    }
    assert shown(capsys, quiet=True) == ""


@pytest.mark.parametrize("words", [[], ["--keep", "0"], ["--keep", "-1"], ["--keep", "all"]])
def test_how_many_stay_must_be_said_and_be_one_at_least(words: list[str]) -> None:
    assert main(["prune", "replica:vg/lv", *words]) == 2
