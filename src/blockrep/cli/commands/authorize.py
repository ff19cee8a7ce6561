"""``blockrep authorize``: what lets an SSH key do one thing, to be pasted on the server.

Standard output is the line for ``authorized_keys``, or with ``--toml`` the section for the
configuration, and nothing else: both can be appended to a file. The other one, and what is to be
done, is told on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from blockrep.certificates.naming import check_name
from blockrep.config.access import DEFAULT_OPERATIONS, OPERATIONS, check_pattern
from blockrep.config.ssh_keys import authorized_line, read_public_key
from blockrep.errors import UsageError

__all__ = ["run", "section"]


def run(options: argparse.Namespace) -> int:
    """Print the line, the section, or both."""
    name = check_name(options.name)
    rules = section(name, options.target, _operations(options.operations))
    if options.toml:
        print(rules)
        return 0
    if options.key is None:
        raise UsageError("--key is missing", next_step="give the client's public key, or --toml")
    line = authorized_line(name, read_public_key(options.key))
    print(line)
    print(
        "# The line above belongs into ~/.ssh/authorized_keys of the server's user, these into its"
        "\n# config.toml (blockrep authorize --toml prints nothing else). Until then the key opens"
        "\n# nothing; with the first [clients] section, whoever has none may do nothing."
        f"\n{rules}",
        file=sys.stderr,
    )
    return 0


def section(name: str, targets: Sequence[str], operations: Sequence[str]) -> str:
    """Return the section of the configuration that gives ``name`` these rights.

    Args:
        name: an identity, checked.
        targets: ``NAME`` or ``NAME=VOLUME`` each.
        operations: checked.

    Raises:
        UsageError: a target is none.
    """
    words = ", ".join(_quoted(word) for word in operations)
    rows = [_row(target, words) for target in targets]
    key = name if "." not in name else _quoted(name)
    return "\n".join([f"[clients.{key}]", "targets = [", *rows, "]"])


def _row(target: str, words: str) -> str:
    name, equals, volume = target.partition("=")
    try:
        check_pattern(name)
        if equals:
            check_pattern(volume)
    except ValueError as error:
        raise UsageError(str(error), where=f"--target {target[:80]!a}") from error
    if equals and ("*" in volume) != ("*" in name):
        raise UsageError("either both or none of them has a *", where=f"--target {target[:80]}")
    mapped = f", volume = {_quoted(volume)}" if equals else ""
    return f"  {{ name = {_quoted(name)}{mapped}, operations = [{words}] }},"


def _operations(texts: Sequence[str] | None) -> list[str]:
    if texts is None:
        return list(DEFAULT_OPERATIONS)
    words = list(dict.fromkeys(word for text in texts for word in text.split(",")))
    for word in words:
        if word not in OPERATIONS:
            raise UsageError(
                f"{word[:40]!r} is no operation",
                where="--operations",
                next_step="accepted: " + ",".join(OPERATIONS),
            )
    return words


def _quoted(text: str) -> str:
    # What JSON escapes, TOML escapes alike; patterns hold no control characters.
    return json.dumps(text, ensure_ascii=False)
