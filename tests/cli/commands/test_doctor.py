"""doctor shows each finding with what helps, fixes what may be fixed, and ends with its code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockrep.cli.commands import doctor
from blockrep.cli.main import main
from blockrep.errors import BusyError
from blockrep.model.findings import Finding, Level

FINE = Finding(Level.OK, "vg/pool", "is well")
LEFT = Finding(Level.WARNING, "vg/br_t", "is left", "lvremove vg/br_t", fix=lambda: None)
BAD = Finding(Level.ERROR, "vg/pool", "is full", "lvextend vg/pool", 6)


def _busy() -> None:
    raise BusyError("in use by a push")


HELD = Finding(Level.WARNING, "vg/br_t", "is left", "lvremove vg/br_t", fix=_busy)

Doctor = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Run doctor on a host without LVM but with these findings."""
    config = tmp_path / "config.toml"
    config.write_text(
        f"[storage]\nstate_directory = '{tmp_path}/state'\nruntime_directory = '{tmp_path}/run'\n"
    )

    def run(found: list[Finding], *options: str) -> int:
        def findings(*_: object) -> Iterator[Finding]:
            yield from found

        monkeypatch.setattr(doctor, "_lvm", findings)
        return main(["doctor", *options, "--config", str(config)])

    return run


def test_what_is_well_and_what_helps(run: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([FINE, LEFT, BAD]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert "ok       vg/pool: is well" in lines
    at = lines.index("warning  vg/br_t: is left")
    assert lines[at + 1] == "         -> lvremove vg/br_t (or: blockrep doctor --fix)"
    assert lines[-1] == "2 problems"


def test_nothing_is_fixed_unless_asked_for(run: Doctor) -> None:
    fixed: list[str] = []
    finding = Finding(Level.WARNING, "a", "b", "c", fix=lambda: fixed.append("a"))
    assert run([finding]) == 0
    assert fixed == []
    assert run([finding], "--fix") == 0
    assert fixed == ["a"]


def test_what_was_fixed_is_no_problem_any_more(
    run: Doctor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([LEFT], "--fix") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["         fixed", "no problems"]


def test_what_could_not_be_fixed_stays_one(run: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([HELD], "--fix") == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == ["         not fixed: in use by a push", "1 problem"]


def test_quiet_shows_problems_only(run: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([FINE, BAD], "--quiet") == 6
    first, _remedy = capsys.readouterr().out.splitlines()
    assert first == "error    vg/pool: is full"


def test_programs_read_the_same(run: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([LEFT], "--fix", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["event"] for one in told} == {"finding"}
    assert told[-1] == {
        "event": "finding",
        "level": "warning",
        "where": "vg/br_t",
        "what": "is left",
        "remedy": "lvremove vg/br_t",
        "fixable": True,
        "fixed": True,
    }


def test_a_target_that_is_not_there_is_an_error(
    run: Doctor, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([], f"127.0.0.1:{tmp_path}/disk.img") == 3, "there are no certificates"
    assert "error    tls://127.0.0.1:8733" in capsys.readouterr().out
