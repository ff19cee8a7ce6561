"""The command line of ``blockrep``: commands, options, and what they are called in errors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from blockrep import __version__
from blockrep.errors import UsageError
from blockrep.model.names import TARGET_FORMS

__all__ = ["parse_arguments"]

_DESCRIPTION = (
    "Replicates LVM thin volumes and image files to another host, incrementally. "
    f"SOURCE is VG/LV or a path that starts with / or a dot; TARGET is {TARGET_FORMS}."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"see {self.prog} --help")

    def parse_known_args(  # type: ignore[override] # of its overloads, those that are used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what is left over, here: argparse would have the whole program's parser do it."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, left


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; the attribute ``command`` says which command it is.

    Raises:
        UsageError: it cannot be understood.
        SystemExit: --help or --version was answered.
    """
    parser = _Parser(prog="blockrep", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"blockrep {__version__}")
    _add_common(parser)
    parser.set_defaults(config=None, debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_push(commands)
    _add_pull(commands)
    _add_verify(commands)
    _add_list(commands)
    _add_prune(commands)
    _add_delta(commands)
    _add_doctor(commands)
    _add_certs(commands)
    _add_peer(commands)
    _add_authorize(commands)
    _add_demo(commands)
    return parser.parse_args(arguments)


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    help_text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        allow_abbrev=False,
    )
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Take these before the command's name, after it, and after the action's."""
    unset = argparse.SUPPRESS  # what was given before stays
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=unset, help="configuration file (TOML)"
    )
    parser.add_argument(
        "--debug", action="store_true", default=unset, help="show where an error came from"
    )


def _add_output(parser: argparse.ArgumentParser, quiet: str = "print nothing but errors") -> None:
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="one JSON object a line, see docs/json.md"
    )
    output.add_argument("--quiet", action="store_true", help=quiet)


def _add_ssh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ssh-command",
        metavar="COMMAND",
        help='for ssh:// targets: use this OpenSSH client, such as "ssh" or "ssh -F FILE"',
    )
    parser.add_argument(
        "--ssh-forward",
        metavar="ADDRESS",
        help="for ssh:// targets: use the server that listens there on the other host "
        "(unix:/PATH or HOST:PORT) instead of starting one",
    )


def _add_retry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry",
        action="store_true",
        help="after a lost connection wait, and go on; ends after an hour without progress, "
        "see [client] in docs/configuration.md",
    )


def _add_push(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "push", "bring a replica to the source's present content")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tell what would be done, do nothing; the exit code says if there is a base (5: none) "
        "and room (6: none), not what only a push is told: what the server's rules say of create, "
        "adopt and quota_bytes",
    )
    parser.add_argument(
        "--compress",
        action=argparse.BooleanOptionalAction,
        help="compress with zstd always, or never; default: where it is seen to pay",
    )
    parser.add_argument(
        "--page-delta",
        action=argparse.BooleanOptionalAction,
        help="send of a changed chunk only the 4 KiB pages that differ from the base, always or "
        "never; default: where it is seen to pay; without effect on image files: what is known of "
        "their changes is sent as it is",
    )
    parser.add_argument("--bwlimit", metavar="RATE", help="bytes a second at most, such as 50M")
    parser.add_argument("--verify", action="store_true", help="compare both ends afterwards")
    parser.add_argument("--profile", action="store_true", help="tell where the time went")
    _add_retry(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--adopt",
        action="store_true",
        help="take over a volume that exists: compare, send what differs, overwrite it",
    )
    mode.add_argument("--full", action="store_true", help="send everything that is allocated")
    parser.add_argument("--shrink", action="store_true", help="allow the replica to become smaller")
    _add_ssh(parser)
    _add_output(parser)


def _add_pull(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "pull", "bring a replica here to the content of a volume there")
    parser.add_argument("source", metavar="HOST:VOLUME", help="as TARGET of a push")
    parser.add_argument("target", metavar="TARGET", help="VG/LV or path on this host")
    parser.add_argument(
        "--compress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="have it compressed where that is seen to pay (the default), or never",
    )
    parser.add_argument("--bwlimit", metavar="RATE", help="bytes a second at most, such as 50M")
    parser.add_argument(
        "--keep", type=int, default=3, metavar="N", help="good snapshots to retain, default 3"
    )
    _add_retry(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--adopt", action="store_true", help="take over a volume that exists, overwrite it"
    )
    mode.add_argument("--full", action="store_true", help="have everything sent again")
    parser.add_argument("--shrink", action="store_true", help="allow the replica to become smaller")
    _add_ssh(parser)
    _add_output(parser)


def _add_verify(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "verify", "compare the newest common snapshot, block by block")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    _add_ssh(parser)
    _add_output(parser)


def _add_list(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "list", "list snapshots, here or at a target")
    parser.add_argument(
        "volume",
        nargs="?",
        metavar="TARGET|SOURCE",
        help="default: all LVM volumes of this host that blockrep keeps snapshots of",
    )
    _add_ssh(parser)
    _add_output(parser)


def _add_prune(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "prune", "drop the oldest good snapshots of a replica")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument(
        "--keep", type=int, required=True, metavar="N", help="how many stay, the newest of them"
    )
    _add_ssh(parser)
    _add_output(parser)


def _add_delta(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "delta", "tell what a push would send, from metadata alone")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--to", metavar="TARGET", help="since the snapshot held for this target")
    parser.add_argument("--extents", action="store_true", help="list every extent")
    _add_output(parser)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(
        commands,
        "doctor",
        "check this host and what is left behind, and say what helps; the exit code is that of the "
        "first error, 0 where there are warnings alone",
    )
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="see whether it can be reached and asked, too"
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what crashes and removed volumes left behind, if it carries our tag and is "
        "still what it was; nothing that may be a last copy",
    )
    _add_ssh(parser)
    _add_output(parser, quiet="print nothing but warnings and errors")


def _add_certs(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "certs", "make a private authority and certificates")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    initialise = actions.add_parser("init", help="make the authority", allow_abbrev=False)
    issue = actions.add_parser("issue", help="issue a host's certificate", allow_abbrev=False)
    issue.add_argument("name", metavar="NAME", help="the host's name; a client's identity")
    issue.add_argument("--server", action="store_true", help="for a host that keeps replicas")
    issue.add_argument("--client", action="store_true", help="for a host that pushes")
    issue.add_argument(
        "--host", action="append", default=[], metavar="NAME|ADDRESS", help="as clients call it"
    )
    issue.add_argument("--days", type=int, metavar="N", help="how long it is valid")
    renew = actions.add_parser(
        "renew", help="replace a certificate by one that ends later", allow_abbrev=False
    )
    renew.add_argument("name", metavar="NAME")
    renew.add_argument("--days", type=int, metavar="N", help="how long it is valid")
    renew.add_argument("--new-key", action="store_true", help="make a new key, too")
    revoke = actions.add_parser(
        "revoke", help="have certificates not trusted any more", allow_abbrev=False
    )
    revoke.add_argument("name", metavar="NAME|FILE", help="a host, or one certificate")
    show = actions.add_parser("show", help="say what a certificate says", allow_abbrev=False)
    show.add_argument("file", nargs="*", type=Path, metavar="FILE", help="default: all here")
    for action in (initialise, issue, renew, revoke, show):
        _add_common(action)
        action.add_argument(
            "--directory", type=Path, metavar="DIR", help="default: certs beside the configuration"
        )


def _add_authorize(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(
        commands, "authorize", "print what lets an SSH key do only this, to be pasted on the server"
    )
    parser.add_argument("name", metavar="NAME", help="the client's identity")
    parser.add_argument(
        "--target",
        action="append",
        required=True,
        metavar="NAME[=VOLUME]",
        help="what the client may ask for, and the volume that it stands for; several allowed",
    )
    parser.add_argument(
        "--operations",
        action="append",
        metavar="WORDS",
        help="out of push,verify,list,pull,prune; default: 3 first; several allowed",
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the client's public SSH key")
    parser.add_argument(
        "--toml",
        action="store_true",
        help="print the section for the server's configuration, instead of the line for "
        "authorized_keys",
    )


def _add_peer(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "peer", "get certificates without copying files")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    invite = actions.add_parser(
        "invite", help="on the server: print a one-time token for a client", allow_abbrev=False
    )
    invite.add_argument("name", metavar="NAME", help="the client's identity")
    invite.add_argument(
        "--host", metavar="HOST[:PORT]", help="where the client reaches this server"
    )
    invite.add_argument("--minutes", type=int, default=10, metavar="N", help="default 10")
    invite.add_argument("--days", type=int, default=90, metavar="N", help="of the certificate")
    invite.add_argument(
        "--replace", action="store_true", help="revoke the certificates that NAME has"
    )
    join = actions.add_parser("join", help="on the client: use a token", allow_abbrev=False)
    join.add_argument("token", metavar="TOKEN", help="- reads it from standard input")
    renew = actions.add_parser(
        "renew", help="on the client: have the certificate renewed", allow_abbrev=False
    )
    renew.add_argument("server", metavar="HOST[:PORT]")
    for action in (invite, join, renew):
        _add_common(action)
        action.add_argument(
            "--directory", type=Path, metavar="DIR", help="default: certs beside the configuration"
        )


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "demo", "show what blockrep does, in a temporary directory")
    parser.add_argument("--keep", action="store_true", help="do not remove the directory")
    parser.add_argument(
        "--size", default="64M", metavar="SIZE", help="of the volume, 16M to 4G, default 64M"
    )
