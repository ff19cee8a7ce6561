"""Standard input, output and error, whatever whoever started us made of them."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, TextIO

from blockrep.errors import StorageError

__all__ = ["discard_output", "prepare_streams"]

_INPUT: Final = 0
_OUTPUT: Final = 1
_ERROR: Final = 2


def prepare_streams(*, output_matters: bool) -> None:
    """Make all three usable. Call it before anything else opens a file.

    A descriptor that is closed would be given to the next file, which what is printed then damages;
    libuv aborts. What standard error does not take is dropped: it decides about nothing.

    Args:
        output_matters: writing to standard output raises BrokenPipeError if nobody reads it, else
            StorageError; without it, what it does not take is dropped, too.
    """
    for descriptor in (_INPUT, _OUTPUT, _ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            # Those below are open, so it gets this number.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(_INPUT, closefd=False)  # noqa: SIM115 - for the whole run
    # Somebody else's in their place are left alone.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(sys.stdout, (_Output if output_matters else _Lossy)(_OUTPUT))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(sys.stderr, _Lossy(_ERROR))


def discard_output() -> None:
    """Drop what standard output did not take: Python would try, and complain, again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    sys.stdout.flush()


class _Stream(io.FileIO):
    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)


class _Output(_Stream):
    def write(self, data: Any, /) -> int:
        """Write; a failure is nobody's defect."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot be written: {error.strerror}", where="standard output"
            ) from error


class _Lossy(_Stream):
    def write(self, data: Any, /) -> int:
        """Write, or do as if."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(before: TextIO | None, raw: _Stream) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if before is None else before.encoding,
        errors="backslashreplace" if before is None else before.errors,
        line_buffering=raw.fileno() == _ERROR or raw.isatty(),
    )
