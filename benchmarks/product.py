"""How blockrep copies a file: over TLS, a Unix socket, SSH; as one volume and as several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from chunked import chunked_argv
from measure import Program, Result, free_port, run_ends
from relay import Link
from sampler import sampler_argv
from workspace import HOST, Workspace


def program_text(part: str) -> str:
    """Return what ``python -c`` needs to run the "client" or the "server"."""
    return f"import sys; from blockrep.programs import {part}; sys.exit({part}())"


def ways_of(option: str) -> dict[str, tuple[str, ...]]:
    """Return what a push can be told of what it else decides by itself, by names."""
    return {"by itself": (), "always": (f"--{option}",), "never": (f"--no-{option}",)}


class Product:
    """Runs blockrep in a workspace.

    Args:
        space: the workspace.
        chunk_bytes: take changes of the source as known by the chunk; 0: as they are known.

    Attributes:
        samples: a folder for profiles of both ends; None: do not sample.
    """

    def __init__(self, space: Workspace, chunk_bytes: int = 0) -> None:
        self._space = space
        self._chunk_bytes = chunk_bytes
        # The same in every run: a replica on another port would be another target.
        self._ports = (free_port(), free_port())
        self.samples: Path | None = None

    def push(self, *options: str, link: Link | None = None, replica: Path | None = None) -> Result:
        """Push the source over TLS; to a replica of another name, if one is given."""
        pair = (self._space.source, replica or self._space.replica)
        return self._over_tls("push", [pair], options, link)

    def push_reporting(self) -> Result:
        """Do the same; the result's output are the events as JSON."""
        client = self.client("push", self._space.source, self.target, output="--json")
        return run_ends(lambda port: [self.server(port)], lambda _port: [client], ports=self._ports)

    @property
    def port(self) -> int:
        """Where the server listens for TLS."""
        return self._ports[0]

    @property
    def target(self) -> str:
        """The replica of the source, over TLS."""
        return f"tls://{HOST}:{self.port}/{self._space.replica}"

    def verify(self) -> Result:
        """Compare the source with the replica over TLS."""
        return self._over_tls("verify", [(self._space.source, self._space.replica)], ())

    def push_many(self, pairs: Sequence[tuple[Path, Path]]) -> Result:
        """Push several volumes to one server at once, by a process each."""
        return self._over_tls("push", pairs, ())

    def _over_tls(
        self,
        command: str,
        pairs: Sequence[tuple[Path, Path]],
        options: Sequence[str],
        link: Link | None = None,
    ) -> Result:
        def senders(port: int) -> list[Program]:
            return [
                self.client(command, sent, f"tls://{HOST}:{port}/{arrives}", *options)
                for sent, arrives in pairs
            ]

        return run_ends(lambda port: [self.server(port)], senders, link, self._ports)

    def push_unix(self) -> Result:
        """Push the source to a server on a Unix socket: nothing is encrypted.

        blockrep reaches such servers through SSH's forwarding. Here a stand-in for ssh makes the
        two ends of the forwarding one socket, so that no other process takes part.
        """
        path = self._space.far / "blockrep.sock"
        path.unlink(missing_ok=True)
        stand_in = self._space.folder / "forward"
        stand_in.write_text(
            '#!/bin/sh\nwhile [ "$1" != -L ]; do shift; done\n'
            'ln -s "${2#*:}" "${2%%:*}"\nexec sleep infinity\n'
        )
        stand_in.chmod(0o755)
        server = self._server(f"unix:{path}", path=path)
        client = self.client(
            "push",
            self._space.source,
            f"ssh://{HOST}/{self._space.replica}",
            f"--ssh-command={stand_in}",
            f"--ssh-forward=unix:{path}",
        )
        return run_ends(lambda _port: [server], lambda _port: [client])

    def server(self, port: int) -> Program:
        """Return a server that listens on a port."""
        return self._server(f"127.0.0.1:{port}", port=port)

    def _server(self, listen: str, *, port: int = 0, path: Path | None = None) -> Program:
        config = str(self._space.folder / "server.toml")
        argv = self._python("server", ["--listen", listen, "--config", config])
        return Program("blockrep-server", argv, port, path, serves=True)

    def client(
        self, command: str, source: Path, target: str, *options: str, output: str = "--quiet"
    ) -> Program:
        """Return a push or verification of one volume."""
        arguments = [command, str(source), target, output, *options]
        arguments += ["--config", str(self._space.folder / "client.toml")]
        return Program(f"blockrep {command}", self._python("client", arguments))

    def _python(self, part: str, arguments: list[str]) -> list[str]:
        if self._chunk_bytes and part == "client":
            return [*chunked_argv(self._chunk_bytes), *arguments]
        if self.samples is not None:
            note = self.samples / f"{part}-{free_port()}.json"
            return [*sampler_argv(note, part), *arguments]
        return [sys.executable, "-c", program_text(part), *arguments]
