"""Where the time went adds up, also of what failed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from blockrep.replication.phases import Phases
from support.virtual_time import in_virtual_time


@in_virtual_time
async def test_seconds_add_up_by_name_and_are_taken_once() -> None:
    phases = Phases()
    for _ in range(2):
        with phases.phase("look"):
            await asyncio.sleep(1.5)
    with contextlib.suppress(ValueError), phases.phase("stream"):
        await asyncio.sleep(1)
        raise ValueError
    taken = phases.take()
    assert [name for name, _ in taken] == ["look", "stream"]
    assert dict(taken) == pytest.approx({"look": 3.0, "stream": 1.0}, abs=0.01)
    assert phases.take() == ()
