"""The programs give the exit code of what they run; garbage is collected while they work."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: Runs a program whose work is to tell about the collector. What is imported tells, too.
SCRIPT = """
import gc, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("blockrep.") and name != "blockrep.programs" and gc.isenabled():
            late.append(name)
program, where, what = sys.argv[1:4]
del sys.argv[1:4]
late = []
sys.meta_path.insert(0, Watch())
from blockrep import programs
def tell(*_, **__):
    print(gc.isenabled(), len(gc.get_objects()) < 2000, *late)
    return 7
load = programs._load
def load_and_replace(name):
    module = load(name)
    if name == where:
        setattr(module, what, tell)
    return module
programs._load = load_and_replace
sys.exit(getattr(programs, program)())
"""


@pytest.mark.parametrize(
    "words",
    [
        ["client", "blockrep.cli.commands.push", "run", "push", "a/b", "c:d/e"],
        ["server", "blockrep.server.main", "_run", "--listen"],
    ],
    ids=["client", "server"],
)
def test_only_what_is_made_after_the_imports_is_looked_through(words: list[str]) -> None:
    argv = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 7
    assert done.stdout == "True True\n"


@pytest.mark.parametrize("program", ["client", "server"])
def test_an_error_ends_with_its_code(program: str) -> None:
    script = f"import sys; from blockrep.programs import {program}; sys.exit({program}())"
    argv = [sys.executable, "-c", script, "--nonsense"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "error: " in done.stderr


#: Is interrupted while it loads.
INTERRUPTED = """
import os, signal, sys
program, module = sys.argv[1:]
del sys.argv[1:]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from blockrep import programs
sys.exit(getattr(programs, program)())
"""


@pytest.mark.parametrize(
    ("program", "module"), [("client", "blockrep.cli.main"), ("server", "blockrep.server.main")]
)
@pytest.mark.parametrize("ignored", [False, True], ids=["heard", "ignored"])
def test_an_interruption_while_it_loads_is_quiet(
    program: str, module: str, *, ignored: bool
) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

    argv = [sys.executable, "-c", INTERRUPTED, program, module]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, preexec_fn=prepare
    )
    if ignored:
        assert done.returncode == 2  # as if nothing had come
        return
    assert done.returncode == -signal.SIGINT  # to a shell: 130
    assert done.stderr == ""
