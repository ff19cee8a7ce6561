"""A dry run tells everything that a push would do."""

from __future__ import annotations

import argparse
import dataclasses
import json

import pytest

from blockrep.cli.commands.push import refuse_without_room, show_dry_run
from blockrep.errors import NoSpaceError
from blockrep.model.lineage import Mode
from blockrep.model.snapshots import Snapshot
from blockrep.replication.push import DryRun

OLD = Snapshot("1" * 32, "a" * 32, 4, 1000, 1 << 30, committed=True, name="br_s_old")
PLAN = DryRun(
    mode=Mode.INCREMENTAL,
    base=OLD,
    reason="changes since snapshot #4",
    data_bytes=1 << 20,
    discard_bytes=1 << 21,
    new_chunks=16,
    chunk_bytes=65536,
    free_bytes=1 << 30,
    creates_replica=False,
    dropped=(OLD,),
)


def options(*, json: bool = False, quiet: bool = False) -> argparse.Namespace:
    return argparse.Namespace(json=json, quiet=quiet)


def test_people_read_what_is_sent_allocated_created_and_dropped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_dry_run(PLAN, options())
    assert capsys.readouterr().out.splitlines() == [
        "mode       incremental: changes since snapshot #4",
        "send       1.0 MiB at most",
        "discard    2.0 MiB",
        "allocate   16 chunks of 64.0 KiB at most: 1.0 MiB",
        "free       1.0 GiB above the reserve at the target",
        "create     a snapshot at each end",
        "drop       br_s_old (#4) here",
    ]


def test_programs_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    show_dry_run(PLAN, options(json=True))
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["mode"], told["new_chunks"]) == ("dry_run", "incremental", 16)
    assert told["dropped"][0]["name"] == "br_s_old"


def test_whoever_wants_quiet_is_told_by_the_exit_code_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_dry_run(PLAN, options(quiet=True))
    assert capsys.readouterr().out == ""


def test_what_does_not_fit_is_no_success() -> None:
    refuse_without_room(PLAN, "replica:vg/lv")
    refuse_without_room(dataclasses.replace(PLAN, free_bytes=1 << 20), "replica:vg/lv")
    unknown = dataclasses.replace(PLAN, new_chunks=None, free_bytes=0)
    refuse_without_room(unknown, "replica:vg/lv")  # what an adoption writes, a comparison tells
    with pytest.raises(NoSpaceError, match=r"allocate 1\.0 MiB, 1023\.0 KiB are free"):
        refuse_without_room(dataclasses.replace(PLAN, free_bytes=1023 << 10), "replica:vg/lv")
