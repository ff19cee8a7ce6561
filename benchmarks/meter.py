"""Runs one program and notes what it took: ``python -I -S meter.py NOTE PROGRAM ARGUMENT...``.

A process of its own, because the kernel counts the memory of whoever starts a program as that
program's (exec keeps the high-water mark): beside this one, which is small, only what starts from
here is counted. All descendants are, also those that outlive their parent (sshd's).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36


def main(note: str, argv: list[str]) -> int:
    """Run the program; pass SIGTERM on; write the note when every descendant has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    child = os.posix_spawnp(argv[0], argv, os.environ)

    def pass_on(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    _, status = os.waitpid(child, 0)
    ended = time.monotonic()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "started": started,
        "ended": ended,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_kib": usage.ru_maxrss,
        "status": os.waitstatus_to_exitcode(status),
    }
    with open(note, "w") as file:  # noqa: PTH123 - pathlib is slow to load
        json.dump(figures, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
