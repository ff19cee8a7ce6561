"""Where the two programs begin: ``blockrep`` is :func:`client`, ``blockrep-server`` :func:`server`.

What imports make stays until the end. Left alone, the garbage collector would look through all of
it a few times while it grows and twice more at exit: an eighth of the processor time of a push that
has nothing to send.
"""

from __future__ import annotations

import gc
import importlib
from types import ModuleType

__all__ = ["client", "server"]


def client() -> int:
    """Run ``blockrep``; return its exit code."""
    return int(_load("blockrep.cli.main").main(load=_load))


def server() -> int:
    """Run ``blockrep-server``; return its exit code."""
    return int(_load("blockrep.server.main").main())


def _load(name: str) -> ModuleType:
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
