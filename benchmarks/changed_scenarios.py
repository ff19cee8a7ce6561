"""Incremental copies: with the delta known (XFS), or found by reading (plain files); verify."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable

import data
from data import MIB, Extents, make_mixed
from full_scenarios import Copies
from measure import Result
from product import Product, ways_of
from relay import Link
from scenario import Scenario, Tool
from ssh import NEEDS as SSH
from ssh import Ssh
from workspace import Workspace

_TINY_EXTENTS = 100_000
_SCAN = ("--no-whole-file", "--inplace", "--ignore-times")

GIGABIT = Link(bytes_per_second=1_000_000_000 // 8)

Choice = Callable[[int], Extents]  # of what changes, given the number of the round


class _Changing:
    """Tools whose destinations hold the state before the change, each its own."""

    def __init__(
        self, space: Workspace, size_bytes: int, choose: Choice, product: Product | None = None
    ) -> None:
        make_mixed(space.source, size_bytes)
        self.copies = Copies(space, product)
        self.space = space
        self.extents: Extents = []
        self._choose = choose
        self._pushed = [(space.source, space.replica)]
        self._piped = [(space.source, space.plain)]

    def seed(self) -> None:
        """Bring every destination to the present state."""
        self.copies.product.push()
        shutil.copyfile(self.space.source, self.space.plain)

    def blockrep(self, name: str, run: Callable[[], Result]) -> Tool:
        """Return a way to push."""
        return Tool(name, run, self._pushed)

    def peer(self, name: str, run: Callable[[], Result], needs: tuple[str, ...]) -> Tool:
        """Return a peer."""
        return Tool(name, run, self._piped, needs=needs)

    def scenario(self, tools: list[Tool], reference: str) -> Scenario:
        """Return these tools."""
        return Scenario(
            tools, reference, self.space.size_bytes, self._change, product=self.copies.product
        )

    def _change(self, round_number: int) -> None:
        self.extents = self._choose(round_number)
        data.overwrite(self.space.source, self.extents, round_number)


def _scan(space: Workspace, size_bytes: int, choose: Choice) -> Scenario:
    changing = _Changing(space, size_bytes, choose)
    changing.seed()
    copies = changing.copies
    tools = [
        changing.blockrep("blockrep TLS", copies.product.push),
        changing.peer("rsync daemon", lambda: copies.peers.rsync(*_SCAN), ("rsync",)),
    ]
    return changing.scenario(tools, "rsync daemon")


def scan_scattered(space: Workspace, size_bytes: int) -> Scenario:
    """1 % changed, scattered; plain files."""
    return _scan(space, size_bytes, lambda number: data.scattered(size_bytes, 1, number))


def scan_contiguous(space: Workspace, size_bytes: int) -> Scenario:
    """1 % changed, in one run; plain files."""
    return _scan(space, size_bytes, lambda number: data.contiguous(size_bytes, 1, number))


def scan_unchanged(space: Workspace, size_bytes: int) -> Scenario:
    """Nothing changed, and only reading can tell; plain files."""
    return _scan(space, size_bytes, lambda _number: [])


def _known(space: Workspace, size_bytes: int, choose: Choice) -> Scenario:
    changing = _Changing(space, size_bytes, choose)
    product = changing.copies.product
    tools = [changing.blockrep("blockrep TLS", product.push)]
    if not all(map(shutil.which, SSH)):
        changing.seed()
        return changing.scenario(tools, tools[0].name)
    ssh = Ssh(space, product)
    ssh.prepare()
    changing.seed()
    # A replica of its own: what one way has brought, the other would not bring again.
    replica = space.images / "over-ssh.img"
    ssh.push_openssh(replica)
    over_ssh = Tool(
        "blockrep OpenSSH", lambda: ssh.push_openssh(replica), [(space.source, replica)]
    )
    pipe = changing.peer("chunk pipe | ssh", lambda: ssh.chunk_pipe(changing.extents), SSH)
    return changing.scenario([*tools, over_ssh, pipe], pipe.name)


def known_scattered(space: Workspace, size_bytes: int) -> Scenario:
    """1 % changed, scattered; the file system knows what."""
    return _known(space, size_bytes, lambda number: data.scattered(size_bytes, 1, number))


def known_contiguous(space: Workspace, size_bytes: int) -> Scenario:
    """1 % changed, in one run; the file system knows what."""
    return _known(space, size_bytes, lambda number: data.contiguous(size_bytes, 1, number))


def known_tiny(space: Workspace, size_bytes: int) -> Scenario:
    """Many lone blocks of 4 KiB changed; the file system knows which."""
    return _known(space, size_bytes, lambda number: data.tiny(size_bytes, _TINY_EXTENTS, number))


def known_unchanged(space: Workspace, size_bytes: int) -> Scenario:
    """Nothing changed; the file system knows that."""
    return _known(space, size_bytes, lambda _number: [])


def pages(chunk_bytes: int, space: Workspace, size_bytes: int) -> Scenario:
    """What a database wrote, in chunks of that size, over 1 Gbit/s."""
    count = max(1, size_bytes // MIB)
    product = Product(space, chunk_bytes)
    changing = _Changing(
        space, size_bytes, lambda number: data.database(size_bytes, count, number), product
    )
    tools: list[Tool] = []
    for word, options in ways_of("page-delta").items():
        # A replica of its own: what one way has brought, the others would not bring again.
        replica = space.images / f"pages-{len(tools)}.img"
        run = functools.partial(product.push, *options, link=GIGABIT, replica=replica)
        run()
        tools.append(Tool(f"blockrep, pages {word}", run, [(space.source, replica)]))
    return changing.scenario(tools, tools[-1].name)


def verify(space: Workspace, size_bytes: int) -> Scenario:
    """Both ends hold the same, and are compared."""
    changing = _Changing(space, size_bytes, lambda _number: [])
    changing.seed()
    copies = changing.copies
    tools = [
        changing.blockrep("blockrep verify TLS", copies.product.verify),
        changing.peer(
            "rsync --checksum",
            lambda: copies.peers.rsync("--checksum", "--dry-run"),
            ("rsync",),
        ),
    ]
    return changing.scenario(tools, "rsync --checksum")
