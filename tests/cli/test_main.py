"""Every end of a command is one line and the exit code of its class (I10)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from blockrep.cli.main import main
from blockrep.errors import ERRORS_BY_CODE, NoSpaceError
from support.failpoints import program

ROOT = Path(__file__).parents[2]
HEAVY = {"asyncio", "ssl", "uvloop", "cryptography", "asyncssh", "msgpack", "zstandard", "socket"}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["format"],
        ["push"],
        ["push", "volg/lv"],
        ["push", "volg/lv", "replica"],
        ["push", "volg", "replica:vg/lv"],
        ["push", "@tag", "replica:vg/lv"],
        ["push", "volg/lv", "replica:vg/lv", "--bwlimit", "fast"],
        ["push", "volg/lv", "replica:vg/lv", "--bwlimit", "0"],
        ["push", "volg/lv", "replica:vg/lv", "--adopt", "--full"],
        ["push", "volg/lv", "replica:vg/lv", "--ful"],
        ["push", "../x\n", "replica:vg/lv"],
        ["verify", "volg/lv", "ftp://replica/vg/lv"],
        ["demo", "--size", "1"],
        ["demo", "--size", "many"],
    ],
)
def test_what_cannot_be_understood_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("blockrep: error: ")


@pytest.mark.parametrize("target", ["replica", "vg/lv", "tls://replica", "ftp://replica/vg/lv"])
def test_what_a_target_looks_like_is_told_once(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "volg/lv", target]) == 2
    assert capsys.readouterr().err.count("HOST:VG/LV") == 1


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "volg/lv", "replica:vg/lv", "--config", "/nowhere.toml"]) == 3
    assert "/nowhere.toml" in capsys.readouterr().err


class Command(ModuleType):
    """Stands in for a command's module: what it raises is what is looked at."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("command")
        self._error = error

    def run(self, _options: object) -> int:
        raise self._error


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_an_error_has_its_code_and_is_told_once(
    json_option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = NoSpaceError("pool is full", where="vg/pool", safe="nothing was changed")
    assert main(["verify", "a/b", "c:d/e", *json_option], lambda _name: Command(error)) == 6
    output = capsys.readouterr()
    assert output.err == "blockrep: error: vg/pool: pool is full; nothing was changed\n"
    if json_option:
        told = json.loads(output.out)
        assert (told["event"], told["code"], told["exit_code"]) == ("error", "no-space", 6)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ValueError("oops"), 70)])
def test_defects_and_interruptions_have_codes_of_their_own(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "a/b", "c:d/e"], lambda _name: Command(error)) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["verify", "a/b", "c:d/e", "--debug"], lambda _name: Command(error)) == code
    assert "Traceback" in capsys.readouterr().err


def test_what_this_user_may_not_do_is_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    error = PermissionError(13, "Permission denied", "/a/file")
    assert main(["verify", "a/b", "c:d/e"], lambda _name: Command(error)) == 11
    assert capsys.readouterr().err.startswith("blockrep: error: /a/file: Permission denied; ")


def test_a_current_directory_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["list", "./disk.img"]) == 2
    assert "the current directory was removed" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_outside_of_an_operation_is_an_interruption(number: signal.Signals) -> None:
    waiting = (
        "import os, signal, sys, time; from blockrep.cli.commands import certs;"
        f"certs.run = lambda _: (os.kill(os.getpid(), {int(number)}), time.sleep(5), 0)[-1];"
    )
    words = [sys.executable, "-c", program("cli", waiting), "certs", "show"]

    def ended(ignored: signal.Signals | None) -> tuple[int, str]:
        def prepare() -> None:
            for one in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(one, signal.SIG_IGN if one == ignored else signal.SIG_DFL)

        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=60, preexec_fn=prepare
        )
        return done.returncode, done.stderr

    assert ended(None) == (130, "blockrep: error: interrupted\n")
    assert ended(number) == (0, "")


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys\nfrom blockrep.cli.main import main\n"
        "try:\n    main([sys.argv[1]])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    # A measurement of coverage would import much by itself.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    for word in ("--help", "--version"):
        argv = [sys.executable, "-I", "-c", script, word]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
        assert HEAVY.isdisjoint(done.stderr.split())


def test_the_readme_lists_the_exit_codes() -> None:
    readme = (ROOT / "README.md").read_text()
    table = dict(re.findall(r"^\| (\d+) \| ([a-z -]+)", readme, re.MULTILINE))
    for error in ERRORS_BY_CODE.values():
        name = table[str(error.exit_code)].strip().replace(" ", "-").split(":")[0]
        assert name == error.code or name.startswith(error.code.split("-")[0]), error


def test_the_documented_events_are_the_events() -> None:
    from blockrep.replication import events

    text = (ROOT / "docs" / "json.md").read_text()
    for cls in events.Event.__subclasses__():
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        assert f"`{name}`" in text
        for field in cls.__dataclass_fields__:
            assert f"`{field}`" in text, (name, field)
