"""Readiness wakes whoever waits, and forgets who gave up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from blockrep.transport.sockets import Readiness, address_text, set_connection_options


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


Ends = tuple[socket.socket, socket.socket]


async def started(*coroutines: asyncio.Task[None]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in coroutines)


async def test_all_who_wait_for_one_direction_are_woken(ends: Ends) -> None:
    readiness = Readiness(ends[0].fileno())
    tasks = [asyncio.create_task(readiness.readable()) for _ in range(2)]
    await started(*tasks)
    ends[1].send(b"x")
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    await asyncio.wait_for(readiness.readable(), 5)  # still unread: still ready
    await asyncio.wait_for(readiness.writable(), 5)


async def test_one_who_gives_up_does_not_take_the_other_along(ends: Ends) -> None:
    readiness = Readiness(ends[0].fileno())
    stays, leaves = (asyncio.create_task(readiness.readable()) for _ in range(2))
    await started(stays, leaves)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    ends[1].send(b"x")
    await asyncio.wait_for(stays, 5)


async def test_after_the_last_gave_up_nothing_is_registered(ends: Ends) -> None:
    readiness = Readiness(ends[0].fileno())
    task = asyncio.create_task(readiness.readable())
    await started(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not asyncio.get_running_loop().remove_reader(ends[0].fileno())


async def test_wake_ends_all_waiting(ends: Ends) -> None:
    readiness = Readiness(ends[0].fileno())
    while True:
        try:
            ends[0].send(bytes(65536))
        except BlockingIOError:
            break
    tasks = [
        asyncio.create_task(readiness.readable()),
        asyncio.create_task(readiness.writable()),
    ]
    await started(*tasks)
    readiness.wake()
    readiness.wake()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert not asyncio.get_running_loop().remove_reader(ends[0].fileno())
    assert not asyncio.get_running_loop().remove_writer(ends[0].fileno())


def test_connections_are_prompt_and_notice_a_peer_that_vanished() -> None:
    with socket.socket() as sock:
        set_connection_options(sock)
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_addresses_for_people() -> None:
    assert address_text("replica", 8733) == "replica:8733"
    assert address_text("::1", 8733) == "[::1]:8733"
