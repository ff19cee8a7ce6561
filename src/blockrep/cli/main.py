"""``blockrep``: runs one command, turns errors into one line and an exit code.

Commands are imported when they are run: ``blockrep --help`` loads neither asyncio nor TLS.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence

from blockrep.cli.arguments import parse_arguments
from blockrep.errors import BlockrepError, InternalError, InterruptedByUserError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = argparse.Namespace(json=False, debug=False)
    try:
        options = parse_arguments(arguments)
        command = importlib.import_module(f"blockrep.cli.commands.{options.command}")
        return int(command.run(options))
    except BlockrepError as error:
        return _fail(error, options)
    except KeyboardInterrupt:
        return _fail(InterruptedByUserError("interrupted"), options)
    except BrokenPipeError:
        # Whoever read our output is gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        defect = InternalError(
            f"defect in blockrep: {type(error).__name__}: {error}",
            safe="good snapshots are never written",
            next_step="run again with --debug and report what it shows",
        )
        return _fail(defect, options)


def _fail(error: BlockrepError, options: argparse.Namespace) -> int:
    if getattr(options, "debug", False):
        traceback.print_exc()
    text = " ".join(str(error).split())
    print(f"blockrep: error: {text}", file=sys.stderr)
    if getattr(options, "json", False):
        fields = {"event": "error", **error.as_fields(), "exit_code": error.exit_code}
        print(json.dumps(fields), flush=True)
    return error.exit_code
