"""Slow links, played by a relay: what compression and windows make of them."""

from __future__ import annotations

import functools

from data import make_compressible
from full_scenarios import Copies
from product import ways_of
from relay import Link
from scenario import Scenario, Tool
from workspace import Workspace

SLOW = Link(bytes_per_second=100_000_000 // 8)
FAR = Link(delay_seconds=0.02)


def _through(link: Link, space: Workspace, size_bytes: int) -> Scenario:
    make_compressible(space.source, size_bytes)
    copies = Copies(space)
    pushed, piped = [(space.source, space.replica)], [(space.source, space.plain)]
    tools = [
        Tool(
            f"blockrep, zstd {word}",
            functools.partial(copies.product.push, *options, link=link),
            pushed,
            space.forget,
        )
        for word, options in ways_of("compress").items()
    ]
    tools += [
        Tool(
            "socat TLS",
            lambda: copies.peers.socat_tls(link),
            piped,
            space.spoil_plain,
            ("socat",),
        ),
        Tool(
            "zstd | socat TLS",
            lambda: copies.peers.zstd_socat_tls(link),
            piped,
            space.spoil_plain,
            ("socat", "zstd"),
        ),
    ]
    return copies.scenario(tools, "socat TLS")


def slow_link(space: Workspace, size_bytes: int) -> Scenario:
    """100 Mbit/s."""
    return _through(SLOW, space, size_bytes)


def far_link(space: Workspace, size_bytes: int) -> Scenario:
    """20 ms each way."""
    return _through(FAR, space, size_bytes)
