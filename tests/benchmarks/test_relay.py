"""The relay plays the link that it says it does, and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from measure import free_port
from relay import Link, Pacer, serve


def test_a_delay_is_added_and_does_not_add_up() -> None:
    pacer = Pacer(Link(delay_seconds=0.02))
    assert pacer.arrival(10.0, 1000) == pytest.approx(10.02)
    assert pacer.arrival(10.001, 1000) == pytest.approx(10.021)


def test_a_rate_is_shared_by_what_follows_at_once() -> None:
    pacer = Pacer(Link(bytes_per_second=1000, delay_seconds=0.5))
    assert pacer.arrival(10.0, 100) == pytest.approx(10.6)
    assert pacer.arrival(10.0, 100) == pytest.approx(10.7)


def test_an_idle_link_saves_nothing_up() -> None:
    pacer = Pacer(Link(bytes_per_second=1000))
    pacer.arrival(10.0, 100)
    assert pacer.arrival(20.0, 100) == pytest.approx(20.1)


def test_what_is_under_way_follows_from_rate_and_delay() -> None:
    slow = Link(bytes_per_second=12_500_000, delay_seconds=0.02)
    assert slow.capacity_bytes == pytest.approx(12_500_000 * 0.07)
    assert Link(delay_seconds=0.02).capacity_bytes / 0.02 > 3e9


@contextlib.asynccontextmanager
async def echo_through(link: Link) -> AsyncIterator[int]:
    """Yield the port of a relay to a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    port = free_port()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        task = asyncio.create_task(serve(link, port, server.sockets[0].getsockname()[1]))
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.01)
            yield port
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_every_byte_passes_in_order_and_so_does_the_end() -> None:
    sent = bytes(range(256)) * 4096
    async with echo_through(Link()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()


async def test_it_is_not_faster_than_its_link() -> None:
    async with echo_through(Link(bytes_per_second=2_000_000, delay_seconds=0.02)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = time.monotonic()
        writer.write(bytes(400_000))
        writer.write_eof()
        assert len(await reader.read()) == 400_000
        assert time.monotonic() - started > 0.2 + 2 * 0.02
        writer.close()
