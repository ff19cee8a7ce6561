"""``blockrep``: runs one command, turns errors into one line and an exit code.

Commands are imported when they are run: ``blockrep --help`` loads neither asyncio nor TLS.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType

from blockrep.cli.arguments import parse_arguments
from blockrep.errors import BlockrepError, InternalError, InterruptedByUserError, StorageError
from blockrep.streams import discard_output, prepare_streams
from blockrep.surroundings import explain_surroundings

__all__ = ["main"]


def main(
    arguments: Sequence[str] | None = None,
    load: Callable[[str], ModuleType] = importlib.import_module,
) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: the command line, without the program's name; None: this process' own.
        load: imports the command's module.
    """
    prepare_streams(output_matters=True)
    options = argparse.Namespace(json=False, debug=False)
    try:
        _be_interruptible()
        try:
            options = parse_arguments(arguments)
        except SystemExit:  # --help or --version was answered
            code = 0
        else:
            command = load(f"blockrep.cli.commands.{options.command}")
            code = int(command.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _unread()
    except BaseException as error:  # noqa: BLE001 - the last resort of the program
        failure = _explained(error)
    try:
        _tell(failure, options)
    except BrokenPipeError:
        return _unread()
    except StorageError:
        discard_output()
    return failure.exit_code


def _be_interruptible() -> None:
    """Let what would end us at once do as SIGINT does, unless it is ignored: nohup(1)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _unread() -> int:
    """Whoever read our output is gone: as if that had ended us."""
    discard_output()
    return 141


def _explained(error: BaseException) -> BlockrepError:
    if isinstance(error, BlockrepError):
        return error
    failure: BlockrepError
    if isinstance(error, KeyboardInterrupt):
        failure = InterruptedByUserError("interrupted")
    else:
        failure = explain_surroundings(error) or InternalError.of(
            error, next_step="run again with --debug and report what it shows"
        )
    failure.__cause__ = error
    return failure


def _tell(error: BlockrepError, options: argparse.Namespace) -> None:
    """Tell of an error. Raises BrokenPipeError, StorageError."""
    if getattr(options, "debug", False):
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    print(f"blockrep: error: {text}", file=sys.stderr)
    if getattr(options, "json", False):
        fields = {"event": "error", **error.as_fields(), "exit_code": error.exit_code}
        print(json.dumps(fields), flush=True)
    sys.stdout.flush()
