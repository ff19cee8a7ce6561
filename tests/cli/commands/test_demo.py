"""The demonstration runs everything for real, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAIN = "import sys; from blockrep.cli.main import main; sys.exit(main())"


def test_the_demonstration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "demo", "--size", "16M"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("listening on", "equal", "killed (SIGKILL)", "resumed:", "verified:", "good"):
        assert words in done.stdout
    assert all(len(line) < 100 for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []
