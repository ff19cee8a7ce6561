"""Runs one end of blockrep and notes where its threads are: ``--profile`` of run.py.

``python sampler.py NOTE client|server ARGUMENT...``. Every few milliseconds it looks at the Python
line of each thread. A thread in native code (hashing, reading, encryption) counts for the line that
called it; one that waits for others does not count. The kernel adds what each thread has used of a
processor: the stage that is at 100 % is the one that limits.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FrameType

from blockrep import programs

_PERIOD_SECONDS = 0.004
_WAITING = {"wait", "select", "_worker", "get", "acquire", "poll", "run_once", "run"}
_SHOWN = 25


def sampler_argv(note: Path, part: str) -> list[str]:
    """Return the command that runs one end ("client" or "server") and writes a note."""
    return [sys.executable, __file__, str(note), part]


def place_of(frame: FrameType) -> str:
    """Return ``file:line function`` of the innermost frame, and of the innermost one of ours."""
    inner = _describe(frame)
    ours: FrameType | None = frame
    while ours is not None and "blockrep" not in ours.f_code.co_filename:
        ours = ours.f_back
    if ours is None or ours is frame:
        return inner
    return f"{_describe(ours)} > {inner}"


def _describe(frame: FrameType) -> str:
    name = frame.f_code.co_filename.rpartition("blockrep/")[2].rpartition("lib/python")[2]
    return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"


def _sample(end: threading.Event, places: Counter[str], cpu: dict[str, float]) -> None:
    own = threading.get_ident()
    while not end.wait(_PERIOD_SECONDS):
        names = {one.ident: one.name for one in threading.enumerate()}
        for ident, frame in sys._current_frames().items():  # noqa: SLF001 - there is no other way
            if ident != own and frame.f_code.co_name not in _WAITING:
                places[f"{names.get(ident, '?')}: {place_of(frame)}"] += 1
        cpu.update(_thread_seconds())


def _thread_seconds() -> dict[str, float]:
    names = {str(one.native_id): one.name for one in threading.enumerate()}
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            nanoseconds = int((task / "schedstat").read_text().split()[0])
            name = names.get(task.name) or (task / "comm").read_text().strip()
            found[f"{name} {task.name}"] = nanoseconds / 1e9
    return found


def main(note: Path, part: str, arguments: list[str]) -> int:
    """Run the program; write the note when it has ended."""
    run = {"client": programs.client, "server": programs.server}[part]
    sys.argv[1:] = arguments
    end, places, cpu = threading.Event(), Counter[str](), dict[str, float]()
    thread = threading.Thread(target=_sample, args=(end, places, cpu), daemon=True)
    thread.start()
    try:
        return run()
    finally:
        end.set()
        thread.join()
        text = json.dumps({"places": places.most_common(_SHOWN), "thread_cpu_seconds": cpu})
        note.write_text(text)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
