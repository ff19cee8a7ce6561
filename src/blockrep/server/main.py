"""``blockrep-server``: reads the command line and the configuration, serves until a signal."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import pwd
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from blockrep import __version__
from blockrep.certificates.naming import is_host_name
from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.ssh_keys import is_key_fingerprint
from blockrep.config.values import Address, LocalAddress, parse_listening_address
from blockrep.errors import BlockrepError, InternalError, InterruptedByUserError, UsageError
from blockrep.server.listening import serve_listening
from blockrep.server.logs import log_to_stderr, log_to_system
from blockrep.server.stdio import serve_stdio
from blockrep.streams import prepare_streams
from blockrep.surroundings import explain_surroundings

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step="see blockrep-server --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="blockrep-server",
        description="Keeps replicas: answers blockrep push, pull, verify, list and prune.",
        allow_abbrev=False,
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--listen",
        action="append",
        nargs="?",
        const="",
        metavar="HOST:PORT|unix:PATH",
        help="listen there, several allowed; without HOST:PORT where the service manager or the "
        "configuration says (default: port 8733 of every address)",
    )
    way.add_argument(
        "--stdio",
        action="store_true",
        help="serve one session on standard input and output: what SSH starts",
    )
    parser.add_argument(
        "--as",
        dest="identity",
        metavar="NAME",
        help="with --stdio: the client's identity, for a key in authorized_keys that has this as "
        "its forced command; it may do what [clients.NAME] says (default: user:LOGIN)",
    )
    parser.add_argument(
        "--key-fingerprint",
        metavar="SHA256:...",
        help="with --as: fingerprint of the client's key, for the audit log",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument("--version", action="version", version=f"blockrep {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; return its exit code."""
    # It serves, whether anybody reads where it listens or not.
    prepare_streams(output_matters=False)
    try:
        return _run(_parser().parse_args(arguments))
    except BlockrepError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail(InterruptedByUserError("interrupted"))
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        if (explained := explain_surroundings(error)) is not None:
            return _fail(explained)
        *_, last = traceback.extract_tb(error.__traceback__)
        where = f"{Path(last.filename).name}:{last.lineno}"
        return _fail(InternalError.of(error, where=where, next_step="report this line"))


def _fail(error: BlockrepError) -> int:
    text = " ".join(str(error).split())
    print(f"blockrep-server: error: {text}", file=sys.stderr)  # noqa: T201 - a command line
    return error.exit_code


def _run(options: argparse.Namespace) -> int:
    if options.stdio:
        return _run_stdio(options)
    if options.listen is None:
        raise UsageError(
            "nothing to do", next_step="use --listen or --stdio; see blockrep-server --help"
        )
    return _run_listening(options)


def _run_listening(options: argparse.Namespace) -> int:
    if options.identity is not None or options.key_fingerprint is not None:
        raise UsageError(
            "--as and --key-fingerprint go with --stdio", next_step="see blockrep-server --help"
        )
    log_to_stderr()
    load = functools.partial(load_settings, options.config, os.environ, os.geteuid())
    settings = load()
    addresses = _addresses(options.listen, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve_listening(settings, addresses, load))


def _run_stdio(options: argparse.Namespace) -> int:
    identity = options.identity
    if identity is None:
        identity = f"user:{pwd.getpwuid(os.geteuid()).pw_name}"
    elif not is_host_name(identity):
        raise UsageError(
            f"{identity[:80]!r} is not a client's name",
            where="--as",
            next_step="small letters, digits, - and .",
        )
    fingerprint = options.key_fingerprint
    if fingerprint is not None and (
        options.identity is None or not is_key_fingerprint(fingerprint)
    ):
        raise UsageError(
            "a key's fingerprint goes with --as, and looks like SHA256:...",
            where="--key-fingerprint",
            next_step="see the line that blockrep authorize prints",
        )
    log_to_system()
    settings = load_settings(options.config, os.environ, os.geteuid())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(
            serve_stdio(
                settings,
                identity,
                os.environ.get("SSH_CONNECTION", ""),
                fingerprint or "",
                # Whoever comes without --as has a shell here: rules would bind nobody.
                needs_rules=options.identity is not None,
            )
        )


def _addresses(texts: Sequence[str], settings: Settings) -> list[Address | LocalAddress]:
    addresses: list[Address | LocalAddress] = []
    for text in texts:
        try:
            if text:
                addresses.append(parse_listening_address(text))
            else:
                addresses += settings.server.listen
        except ValueError as error:
            raise UsageError(str(error), where=f"--listen {text}") from error
    return addresses
