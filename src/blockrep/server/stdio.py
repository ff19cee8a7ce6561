"""One session on standard input and output: what SSH starts on the replica's host."""

from __future__ import annotations

import asyncio
import os
import signal
import stat

from blockrep.config.settings import Settings
from blockrep.errors import ConfigurationError, UsageError
from blockrep.replication.blocking import ThreadBlocking
from blockrep.server.audit import audit_for, use_audit_file
from blockrep.server.graph import THREADS_PER_SESSION, audit_file_of, service_of
from blockrep.transport.descriptors import DescriptorTransport
from blockrep.transport.interface import PeerInfo

__all__ = ["serve_stdio"]

_INPUT, _OUTPUT = 0, 1


async def serve_stdio(
    settings: Settings, identity: str, ssh_connection: str, fingerprint: str, *, needs_rules: bool
) -> int:
    """Serve one session to its end; return the exit code.

    Args:
        settings: the configuration.
        identity: of the client; whoever starts us vouches for it.
        ssh_connection: the variable SSH_CONNECTION of sshd(8), for the log; may be empty.
        fingerprint: of the client's key, for the log; may be empty.
        needs_rules: the client cannot do anything but this, so without rules it may do nothing.

    Raises:
        BlockrepError: nothing can be served like this.
    """
    for descriptor in (_INPUT, _OUTPUT):
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise UsageError(
                "--stdio is what SSH starts: standard input and output must be its pipes",
                next_step="push to ssh://HOST/VG/LV, or use --listen",
            )
    settings.access.check()
    use_audit_file(audit_file_of(settings))
    words = ssh_connection.split()
    address = f"ssh from {words[0]}:{words[1]}" if len(words) == 4 else "stdio"
    peer = PeerInfo(identity, address, fingerprint)
    if needs_rules and settings.access.clients is None:
        raise _without_rules(peer, settings)
    session = asyncio.current_task()
    assert session is not None
    loop = asyncio.get_running_loop()
    with ThreadBlocking(THREADS_PER_SESSION) as blocking:
        service = service_of(settings, blocking)
        # Whatever prints by mistake must not end up in the stream.
        reading, writing = os.dup(_INPUT), os.dup(_OUTPUT)
        os.dup2(2, _OUTPUT)
        transport = DescriptorTransport(reading, writing, peer)
        serving = asyncio.create_task(service.serve(transport))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, serving.cancel)
        await asyncio.wait([serving])
        transport.abort()
    return 0


def _without_rules(peer: PeerInfo, settings: Settings) -> ConfigurationError:
    what = f"there are no rules, so {peer.identity} may do nothing"
    audit_for(peer)("refused", {"what": what})
    return ConfigurationError(
        what,
        where=str(settings.file),
        safe="nothing was changed",
        next_step=f"add [clients.{peer.identity}] there: blockrep authorize {peer.identity}"
        " --target VG/LV --toml",
    )
