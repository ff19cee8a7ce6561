"""What is nobody's defect: a removed current directory, files that are closed to the user."""

from __future__ import annotations

import os

from blockrep.errors import BlockrepError, StorageError, UsageError

__all__ = ["explain_surroundings"]


def explain_surroundings(error: BaseException) -> BlockrepError | None:
    """Return the error to show for an exception that nobody caught; None: it is a defect."""
    if isinstance(error, PermissionError) and error.filename is not None:
        return StorageError(
            error.strerror or "not permitted",
            where=os.fsdecode(error.filename),
            next_step="run as a user who may, such as root",
        )
    if isinstance(error, FileNotFoundError) and error.filename is None and not _is_somewhere():
        return UsageError(
            "the current directory was removed, so no relative path leads anywhere",
            next_step="cd to one that exists, and run the same again",
        )
    return None


def _is_somewhere() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - asks the system, and nothing else
    except FileNotFoundError:
        return False
    return True
