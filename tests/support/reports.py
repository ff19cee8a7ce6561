"""Counts of what was tried and what went wrong, for ``make reliability-report``.

Tests record them; without ``BLOCKREP_REPORT`` (a folder) that does nothing. ``python -m
support.reports FOLDER`` prints them.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def record(what: str, tried: int, wrong: int, detail: str = "") -> None:
    """Record that ``tried`` things of a kind were tried and ``wrong`` of them went wrong."""
    folder = os.environ.get("BLOCKREP_REPORT")
    if folder:
        content = {"what": what, "tried": tried, "wrong": wrong, "detail": detail}
        Path(folder, f"{uuid.uuid4()}.json").write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def counted(what: str) -> Iterator[None]:
    """Count one thing that is tried, and whether it went wrong."""
    try:
        yield
    except BaseException as error:
        record(what, 1, 1, repr(error))
        raise
    record(what, 1, 0)


def table(folder: Path) -> list[str]:
    """Return a line for each kind of thing that was tried; what went wrong with its details."""
    tried: collections.Counter[str] = collections.Counter()
    wrong: collections.Counter[str] = collections.Counter()
    details: dict[str, list[str]] = {}
    for path in folder.glob("*.json"):
        one = json.loads(path.read_text(encoding="utf-8"))
        tried[one["what"]] += one["tried"]
        wrong[one["what"]] += one["wrong"]
        if one["detail"]:
            details.setdefault(one["what"], []).append(one["detail"])
    lines = []
    for what in sorted(tried):
        shown = sorted(details.get(what, []))[:2]
        about = f"  ({'; '.join(shown)})" if shown else ""
        lines.append(f"{tried[what]:>9} {what}, {wrong[what]} went wrong{about}")
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join([*table(Path(sys.argv[1])), ""]))
