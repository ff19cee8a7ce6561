"""Only what the rules allow is opened; unknown and forbidden look alike; one session at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from blockrep.errors import BusyError, RefusedError
from blockrep.model.names import VolumeName, parse_volume
from blockrep.replication.pacing import RateLimiter
from blockrep.server.gate import TargetGate
from blockrep.storage.interface import SourceVolume, TargetVolume
from support.hosts import Allowed
from support.virtual_time import run_virtual


def gate(
    tmp_path: Path, opened: list[VolumeName], audit: list[Any], wait_seconds: float = 5
) -> TargetGate:
    def authorize(identity: str, volume: str, operation: str) -> Allowed | None:
        if (identity, volume) == ("origin", "vg/lv") and operation in {"push", "pull"}:
            return Allowed(parse_volume("real/volume"), adopt=False, keep_min=2, quota_bytes=5)
        return None

    def open_target(name: VolumeName) -> TargetVolume:
        opened.append(name)
        return cast("TargetVolume", object())

    def open_source(name: VolumeName) -> SourceVolume:
        opened.append(name)
        return cast("SourceVolume", object())

    return TargetGate(
        "10.0.0.1:5",
        authorize,
        open_target,
        tmp_path,
        wait_seconds,
        lambda *line: audit.append(line),
        lambda _identity, permission: RateLimiter(permission.rate_bytes_per_second),
        open_source,
    )


def test_an_allowed_volume_is_what_the_configuration_says(tmp_path: Path) -> None:
    opened: list[VolumeName] = []

    async def scenario() -> None:
        async with gate(tmp_path, opened, []).open("origin", "vg/lv", "push") as access:
            assert (access.may_create, access.may_adopt, access.keep) == (True, False, 3)
            assert (access.keep_min, access.quota_bytes) == (2, 5)

    run_virtual(scenario())
    assert opened == [parse_volume("real/volume")]


@pytest.mark.parametrize(
    ("identity", "operation", "told"),
    [
        ("origin", "push", "push may need a rule in [clients.origin]"),
        ("user:root", "verify", 'verify may need a rule in [clients."user:root"]'),
        ("a.example", "pull", 'pull needs a rule in [clients."a.example"]'),
    ],
)
def test_a_refusal_names_who_asked_and_what_is_needed(
    tmp_path: Path, identity: str, operation: str, told: str
) -> None:
    async def advice(volume: str) -> str | None:
        with pytest.raises(RefusedError) as refused:
            async with gate(tmp_path, [], []).open(identity, volume, operation):
                pass
        return refused.value.next_step

    (found,) = {run_virtual(advice(volume)) for volume in ("vg/secret", "/a.img", "./a.img")}
    assert found is not None
    assert told in found
    assert "image_directory" in found


@pytest.mark.parametrize(
    "request_of",
    [("other", "vg/lv", "push"), ("origin", "vg/else", "push"), ("origin", "vg/lv", "format")],
)
def test_unknown_and_forbidden_answer_alike_and_are_on_record(
    tmp_path: Path, request_of: tuple[str, str, str]
) -> None:
    opened: list[VolumeName] = []
    audit: list[Any] = []

    async def scenario() -> str:
        with pytest.raises(RefusedError) as caught:
            async with gate(tmp_path, opened, audit).open(*request_of):
                pass
        return caught.value.what.replace(request_of[2], "OPERATION")

    assert run_virtual(scenario()) == "OPERATION is not allowed, or there is no such volume"
    assert not opened
    assert audit[0][0] == "refused"


def test_a_held_volume_is_waited_for_then_refused_with_its_holder(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = gate(tmp_path, [], [])
        async with first.open("origin", "vg/lv", "push"):
            before = asyncio.get_running_loop().time()
            with pytest.raises(BusyError, match=r"push by origin from 10\.0\.0\.1:5"):
                async with gate(tmp_path, [], []).open("origin", "vg/lv", "push"):
                    pass
            assert asyncio.get_running_loop().time() - before >= 5

    run_virtual(scenario())


def test_a_volume_let_go_in_time_is_opened(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def hold() -> None:
            async with gate(tmp_path, [], []).open("origin", "vg/lv", "push"):
                await asyncio.sleep(3)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        async with gate(tmp_path, [], []).open("origin", "vg/lv", "push"):
            assert holding.done()

    run_virtual(scenario())


def test_a_pull_is_held_for_its_target(tmp_path: Path) -> None:
    opened: list[VolumeName] = []

    async def scenario() -> None:
        ours = gate(tmp_path, opened, [], wait_seconds=0)
        async with ours.open_source("origin", "vg/lv", "pull by origin: {0}") as access:
            assert access.bytes_per_second == 0
            async with ours.open_source("origin", "vg/lv", "pull by origin: other"):
                pass
            with pytest.raises(BusyError, match="pull by origin"):
                async with ours.open_source("origin", "vg/lv", "pull by origin: {0}"):
                    pass
        with pytest.raises(RefusedError):
            async with ours.open_source("stranger", "vg/lv", "x"):
                pass

    asyncio.run(scenario())
    assert opened == [parse_volume("real/volume")] * 2
