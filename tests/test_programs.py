"""The programs give the exit code of what they run; garbage is collected while they work."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Runs a program whose work is to tell about the collector, and again at exit.
SCRIPT = """
import atexit, gc, importlib, sys
from blockrep import programs
def tell(*_, **__):
    print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 2000)
    return 7
main = importlib.import_module(sys.argv.pop(1))
{replace}
atexit.register(tell)
sys.exit(programs.{program}())
"""


@pytest.mark.parametrize(
    ("program", "module", "replace"),
    [
        ("client", "blockrep.cli.commands.certs", "main.run = tell"),
        ("server", "blockrep.server.main", "main._run = tell"),
    ],
)
def test_only_what_is_made_after_the_start_is_looked_through(
    program: str, module: str, replace: str
) -> None:
    script = SCRIPT.format(program=program, replace=replace)
    words = ["certs", "show"] if program == "client" else ["--listen"]
    argv = [sys.executable, "-c", script, module, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 7
    assert done.stdout.splitlines() == ["True True True"] * 2


@pytest.mark.parametrize("program", ["client", "server"])
def test_an_error_ends_with_its_code(program: str) -> None:
    script = f"import sys; from blockrep.programs import {program}; sys.exit({program}())"
    argv = [sys.executable, "-c", script, "--nonsense"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "error: " in done.stderr
