"""Counts of what was tried and what went wrong, for ``make reliability-report``.

Tests record them; without ``BLOCKREP_REPORT`` (a folder) that does nothing.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path


def record(what: str, tried: int, wrong: int, detail: str = "") -> None:
    """Record that ``tried`` things of a kind were tried and ``wrong`` of them went wrong."""
    folder = os.environ.get("BLOCKREP_REPORT")
    if folder:
        content = {"what": what, "tried": tried, "wrong": wrong, "detail": detail}
        Path(folder, f"{uuid.uuid4()}.json").write_text(json.dumps(content), encoding="utf-8")
