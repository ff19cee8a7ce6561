"""A server outlives its sessions: refusals and defects end one of them, never the server."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import cast

import pytest

from blockrep.errors import BusyError
from blockrep.protocol.messages import Bye, Hello, Open, Welcome
from blockrep.protocol.transitions import Side
from blockrep.replication.channel import Channel
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.gate import Permission
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.interface import TargetVolume
from blockrep.transport.memory import memory_pair
from support.virtual_time import InlineBlocking, run_virtual

LIMITS = ReceiverLimits(65536, 4 * 65536, 5, 30)


def service(tmp_path: Path, max_sessions: int = 2) -> Service:
    def authorize(_identity: str, _volume: str, _operation: str) -> Permission | None:
        raise ZeroDivisionError

    settings = ServiceSettings(LIMITS, max_sessions, 1 << 23, 10, 1, tmp_path)
    return Service(settings, authorize, lambda _name: cast("TargetVolume", None), InlineBlocking())


def test_a_defect_ends_one_session_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        serving_service = service(tmp_path)
        left, right = memory_pair()
        serving = asyncio.create_task(serving_service.serve(right))
        async with Channel(left, Side.CLIENT) as client:
            await client.send(Hello((1, 1), (), "t"))
            await client.receive(Welcome)
            await client.send(Open("push", "vg/lv", ""))
            await serving
        assert client.session.error is not None
        assert client.session.error.code == "internal"

    caplog.set_level(logging.ERROR)
    run_virtual(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_the_number_of_sessions_is_limited(tmp_path: Path) -> None:
    async def scenario() -> None:
        serving_service = service(tmp_path, max_sessions=1)
        first_left, first_right = memory_pair()
        second_left, second_right = memory_pair()
        first = asyncio.create_task(serving_service.serve(first_right))
        async with Channel(first_left, Side.CLIENT) as client:
            await client.send(Hello((1, 1), (), "t"))
            await client.receive(Welcome)
            second = asyncio.create_task(serving_service.serve(second_right))
            async with Channel(second_left, Side.CLIENT) as refused:
                with pytest.raises(BusyError, match="limit of 1 session"):
                    await refused.receive(Welcome)
            await second
            await client.send(Bye())
            await first

    run_virtual(scenario())


def test_an_old_client_is_told_which_version_is_spoken(tmp_path: Path) -> None:
    async def scenario() -> str:
        serving_service = service(tmp_path)
        left, right = memory_pair()
        serving = asyncio.create_task(serving_service.serve(right))
        async with Channel(left, Side.CLIENT) as client:
            await client.send(Hello((7, 9), (), "t"))
            await serving
        assert client.session.error is not None
        return client.session.error.what

    assert "speaks protocol 1, the client 7 to 9" in run_virtual(scenario())
