"""Where the two programs begin: ``blockrep`` is :func:`client`, ``blockrep-server`` :func:`server`.

What imports make stays until the end. Left alone, the garbage collector would look through all of
it a few times while it grows and twice more at exit: an eighth of the processor time of a push that
has nothing to send. A SIGINT meanwhile ends the process as SIGTERM does: there is nothing to tell.
"""

from __future__ import annotations

import gc
import importlib
import signal
from types import ModuleType

__all__ = ["client", "server"]


def client() -> int:
    """Run ``blockrep``; return its exit code."""
    return int(_begin("blockrep.cli.main").main(load=_load))


def server() -> int:
    """Run ``blockrep-server``; return its exit code."""
    return int(_begin("blockrep.server.main").main())


def _begin(name: str) -> ModuleType:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _load(name)  # somebody ignores it: nohup(1), or a shell's background
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return _load(name)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _load(name: str) -> ModuleType:
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
