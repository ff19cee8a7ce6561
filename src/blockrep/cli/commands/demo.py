"""``blockrep demo``: the whole tool on image files in a temporary directory, with real processes.

Needs no root, no LVM, no network beyond loopback. The commands that it shows are the ones it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.cli.rendering import format_bytes
from blockrep.config.values import parse_size
from blockrep.errors import InternalError, UsageError

__all__ = ["run"]

_MIB = 1024 * 1024
_LEAST_BYTES = 16 * _MIB
_MOST_BYTES = 4096 * _MIB
_WIDTH = 78
_SLOW_RATE = "12M"


def run(options: argparse.Namespace) -> int:
    """Run the demonstration; remove what it made."""
    try:
        size_bytes = parse_size(options.size)
    except ValueError as error:
        raise UsageError(str(error), where="--size") from error
    if not _LEAST_BYTES <= size_bytes <= _MOST_BYTES:
        raise UsageError("the size must be from 16M to 4G", where="--size")
    folder = Path(tempfile.mkdtemp(prefix="blockrep-demo-"))
    try:
        _Demo(folder, size_bytes).run()
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


class _Demo:
    """Two hosts in one folder: ``origin`` with a disk image, ``replica`` with a server."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._random = random.Random()  # noqa: S311 - content to move, not a secret
        self._source = folder / "origin" / "vm.img"
        self._replica = folder / "replica" / "images" / "vm.img"
        self._target = ""
        self._step = 0

    def run(self) -> None:
        """Tell and show."""
        _say(
            "blockrep keeps a replica of a disk on another host. This demonstration plays both "
            f"hosts in {self._folder}, with real processes, certificates and TLS on loopback; the "
            "disk is an image file. With LVM thin volumes the commands are the same. All commands "
            "run in that folder, with --config HOST/config.toml."
        )
        self._prepare()
        with self._server():
            self._push_everything()
            self._push_changes()
            self._interrupt_and_resume()
            self._verify()
        _say("")
        _say(
            "Next: certs/README.md makes certificates for two real hosts; then, as root, "
            "`blockrep-server --listen` on one and `blockrep push VG/LV HOST:VG/LV` on the other. "
            "A push may be interrupted at any moment; the next one goes on."
        )

    def _prepare(self) -> None:
        self._title("Two hosts, a private authority, a certificate for each")
        authority = self._folder / "authority"
        _show_command("blockrep", "certs", "init")
        _show_command("blockrep", "certs", "issue", "localhost", "--server")
        _show_command("blockrep", "certs", "issue", "origin", "--client")
        create_authority(authority)
        issue(authority, "localhost", [Role.SERVER])
        issue(authority, "origin", [Role.CLIENT])
        self._replica.parent.mkdir(parents=True)
        for host, certificate in (("origin", "origin"), ("replica", "localhost")):
            certificates = self._folder / host / "certs"
            certificates.mkdir(mode=0o700, parents=True)
            for name in ("ca.pem", f"{certificate}.pem", f"{certificate}.key"):
                shutil.copy(authority / name, certificates / name)
            lines = [
                "[storage]",
                f"state_directory = {json.dumps(str(self._folder / host / 'state'))}",
                f"runtime_directory = {json.dumps(str(self._folder / host / 'run'))}",
            ]
            if host == "replica":
                # Small windows make a small disk behave like a large one: many acknowledgements.
                lines += [
                    "[server]",
                    f"image_directory = {json.dumps(str(self._replica.parent))}",
                    'window_bytes = "4MiB"',
                ]
            (self._folder / host / "config.toml").write_text("\n".join(lines) + "\n")
        self._make_source()
        _result(f"{self._source.name}: {format_bytes(self._size_bytes)}, half of it written")

    def _make_source(self) -> None:
        with self._source.open("wb") as file:
            for offset in range(0, self._size_bytes, 2 * _MIB):
                file.seek(offset)
                file.write(self._random.randbytes(_MIB))
            file.truncate(self._size_bytes)

    @contextlib.contextmanager
    def _server(self) -> Iterator[None]:
        self._title("The host with the replica listens")
        _show_command("blockrep-server", "--listen", "127.0.0.1:0")
        log = (self._folder / "replica" / "log").open("wb")
        command = [*_program("server"), "--listen", "127.0.0.1:0", "--config"]
        command.append(str(self._folder / "replica" / "config.toml"))
        with (
            log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
        ):
            try:
                line = (server.stdout.readline() if server.stdout else "").strip()
                if not line.startswith("listening on "):
                    msg = "the demo's server did not start"
                    raise InternalError(msg, where=str(self._folder), next_step="try --keep")
                _result(line)
                port = line.rpartition(":")[2]
                self._target = f"tls://localhost:{port}/./{self._replica.name}"
                yield
            finally:
                server.terminate()

    def _push_everything(self) -> None:
        self._title("The first push creates the replica: zeros and holes are not sent")
        self._push()
        self._compare()

    def _push_changes(self) -> None:
        self._title("After a few writes, the next push sends what changed, nothing else")
        with self._source.open("r+b") as file:
            for _ in range(5):
                file.seek(self._random.randrange(0, self._size_bytes - 4096, 4096))
                file.write(self._random.randbytes(4096))
        self._push()
        self._compare()

    def _interrupt_and_resume(self) -> None:
        self._title("A push that is killed half way loses nothing: the next one resumes")
        with self._source.open("r+b") as file:
            for _ in range(self._size_bytes // _MIB // 2):
                file.write(self._random.randbytes(_MIB))
        half = self._size_bytes // 4
        words = ("push", self._named_source, self._target, "--bwlimit", _SLOW_RATE)
        _show_command("blockrep", *words)
        command = self._command(*words, "--json")
        durable_bytes = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self._folder) as push:
            for line in push.stdout or ():
                durable_bytes = max(durable_bytes, json.loads(line).get("durable_bytes", 0))
                if durable_bytes >= half:
                    push.kill()
                    break
        _result(f"killed (SIGKILL) when {format_bytes(durable_bytes)} were on stable storage there")
        before = self._replica_digest()
        _result(f"the replica is still what it was: sha256 {before[:16]}")
        self._push()
        self._compare()

    def _verify(self) -> None:
        self._title("Both hosts digest their newest common snapshot and compare")
        self._call("verify", self._named_source, self._target)
        self._title("What the replica's host keeps")
        self._call("list", self._target)

    @property
    def _named_source(self) -> str:
        return f"./{self._source.relative_to(self._folder)}"

    def _push(self) -> None:
        self._call("push", self._named_source, self._target)

    def _command(self, *words: str) -> list[str]:
        return [*_program("cli"), *words, "--config", str(self._folder / "origin" / "config.toml")]

    def _call(self, *words: str) -> None:
        _show_command("blockrep", *words)
        done = subprocess.run(
            self._command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self._folder,
        )
        for line in done.stdout.splitlines():
            _result(line)
        if done.returncode:
            raise InternalError(
                f"the command failed with exit code {done.returncode}",
                where="demo",
                next_step="run again with --keep and report it",
            )

    def _compare(self) -> None:
        source = _digest(self._source)
        replica = self._replica_digest()
        _result(f"sha256 of the source   {source[:32]}...")
        _result(f"sha256 of the replica  {replica[:32]}...  {'equal' if source == replica else ''}")
        if source != replica:
            raise InternalError("the replica differs from the source", where=str(self._folder))

    def _replica_digest(self) -> str:
        return _digest(self._replica)

    def _title(self, text: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)


def _program(which: str) -> list[str]:
    """Return how to start one of our programs with this very Python, installed or not."""
    module = "blockrep.cli.main" if which == "cli" else "blockrep.server.main"
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(text: str) -> None:
    print(textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False), flush=True)


def _show_command(*words: str) -> None:
    print(f"   $ {shlex.join(words)}", flush=True)


def _result(text: str) -> None:
    print(f"     {text}", flush=True)
