"""Full copies: to an empty target, sparse, in many small extents, over SSH, several at once."""

from __future__ import annotations

from collections.abc import Callable

from data import MIB, make_mixed, make_sparse, make_tiny, spoil
from measure import Result
from peers import NBD, Peers
from product import Product
from scenario import Scenario, Tool
from ssh import NEEDS as SSH
from ssh import Ssh
from workspace import Workspace

_TINY_EXTENTS = 100_000
_VOLUMES = 8


class Copies:
    """The tools of a full copy, each with its destination made ready before each run."""

    def __init__(self, space: Workspace, product: Product | None = None) -> None:
        space.configure()
        self.space = space
        self.product = product or Product(space)
        self.peers = Peers(space)
        self._pushed = [(space.source, space.replica)]
        self._piped = [(space.source, space.plain)]

    def push(self) -> Tool:
        """Push over TLS."""
        return Tool("blockrep TLS", self.product.push, self._pushed, self.space.forget)

    def push_unix(self) -> Tool:
        """Push without encryption."""
        run = self.product.push_unix
        return Tool("blockrep Unix socket", run, self._pushed, self.space.forget)

    def socat_tls(self) -> Tool:
        """Pipe over TLS."""
        return self._peer("socat TLS", self.peers.socat_tls, ("socat",))

    def socat_tls_new(self) -> Tool:
        """Pipe over TLS into a new file: like blockrep, whose replica is whole at any moment."""
        run = self.peers.socat_tls
        return Tool("socat TLS, new file", run, self._piped, self.space.remove_plain, ("socat",))

    def socat_tcp(self) -> Tool:
        """Pipe without encryption."""
        return self._peer("socat TCP", self.peers.socat_tcp, ("socat",))

    def socat_unix(self) -> Tool:
        """Pipe through a Unix socket."""
        return self._peer("socat Unix socket", self.peers.socat_unix, ("socat",))

    def nbdcopy(self, *, tls: bool, holes: bool = False) -> Tool:
        """Copy to a network block device."""
        name = "nbdcopy TLS" if tls else "nbdcopy TCP"
        return self._peer(name, lambda: self.peers.nbdcopy(tls=tls, holes=holes), NBD)

    def rsync(self, *options: str) -> Tool:
        """Copy to an rsync daemon."""
        return self._peer("rsync daemon", lambda: self.peers.rsync(*options), ("rsync",))

    def _peer(self, name: str, run: Callable[[], Result], needs: tuple[str, ...]) -> Tool:
        return Tool(name, run, self._piped, self.space.spoil_plain, needs)

    def scenario(self, tools: list[Tool], reference: str) -> Scenario:
        """Return these tools, for the source as it is."""
        return Scenario(tools, reference, self.space.size_bytes, product=self.product)


def full(space: Workspace, size_bytes: int) -> Scenario:
    """Everything, encrypted."""
    make_mixed(space.source, size_bytes)
    copies = Copies(space)
    tools = [copies.push(), copies.socat_tls(), copies.nbdcopy(tls=True)]
    if not space.fresh:  # else it is the same
        tools.append(copies.socat_tls_new())
    return copies.scenario(tools, "socat TLS")


def full_plain(space: Workspace, size_bytes: int) -> Scenario:
    """Everything, not encrypted."""
    make_mixed(space.source, size_bytes)
    copies = Copies(space)
    tools = [
        copies.push_unix(),
        copies.nbdcopy(tls=False),
        copies.socat_tcp(),
        copies.socat_unix(),
        copies.rsync("--whole-file", "--inplace", "--ignore-times"),
    ]
    return copies.scenario(tools, "nbdcopy TCP")


def _holes(copies: Copies) -> Scenario:
    tools = [
        copies.push(),
        copies.nbdcopy(tls=True, holes=True),
        copies.socat_tls(),
        copies.rsync("--whole-file", "--sparse", "--ignore-times"),
    ]
    return copies.scenario(tools, "nbdcopy TLS")


def sparse(space: Workspace, size_bytes: int) -> Scenario:
    """Nine tenths of the volume are not allocated."""
    make_sparse(space.source, size_bytes)
    return _holes(Copies(space))


def tiny_extents(space: Workspace, size_bytes: int) -> Scenario:
    """What is allocated are lone blocks of 4 KiB."""
    make_tiny(space.source, size_bytes, _TINY_EXTENTS)
    return _holes(Copies(space))


def over_ssh(space: Workspace, size_bytes: int) -> Scenario:
    """Everything, through SSH."""
    make_mixed(space.source, size_bytes)
    copies = Copies(space)
    ssh = Ssh(space, copies.product)
    ssh.prepare()
    pushed, piped = [(space.source, space.replica)], [(space.source, space.plain)]
    tools = [
        Tool("blockrep asyncssh", ssh.push_library, pushed, space.forget, SSH),
        Tool("blockrep OpenSSH", ssh.push_openssh, pushed, space.forget, SSH),
        Tool("dd | ssh | dd", ssh.pipe, piped, space.spoil_plain, SSH),
    ]
    return copies.scenario(tools, "dd | ssh | dd")


def eight_volumes(space: Workspace, size_bytes: int) -> Scenario:
    """Eight volumes at once, beside one of the same size as all of them."""
    part_bytes = size_bytes // _VOLUMES // MIB * MIB
    make_mixed(space.source, part_bytes * _VOLUMES)
    copies = Copies(space)
    parts = [space.folder / f"part{number}.img" for number in range(_VOLUMES)]
    with space.source.open("rb") as file:
        for path in parts:
            path.write_bytes(file.read(part_bytes))
    pushed = [(path, space.images / path.name) for path in parts]
    piped = [(path, space.plain.parent / path.name) for path in parts]

    def spoil_all() -> None:
        for _, path in piped:
            spoil(path, part_bytes)

    many = Tool(
        f"blockrep TLS x{_VOLUMES}",
        lambda: copies.product.push_many(pushed),
        pushed,
        space.forget,
    )
    peer = Tool(
        f"socat TLS x{_VOLUMES}",
        lambda: copies.peers.many_socat_tls(piped),
        piped,
        spoil_all,
        ("socat",),
    )
    return copies.scenario([copies.push(), many, peer], "blockrep TLS")
