"""A spool gives back what was written; a full temporary folder is an error that says so."""

from __future__ import annotations

import errno
import os
import tempfile
from unittest import mock

import pytest

from blockrep.errors import BlockrepError, NoSpaceError, StorageError
from blockrep.replication.spool import Spool


def test_what_was_written_is_read_as_often_as_asked() -> None:
    spool = Spool()
    for number in range(3):
        spool.write(bytes([number]) * (2 << 20))
    for _ in range(2):
        spool.rewind()
        assert spool.read(6 << 20) == b"".join(bytes([one]) * (2 << 20) for one in range(3))
        assert spool.read(1) == b""
    spool.close()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StorageError)]
)
def test_a_temporary_folder_that_is_full_or_broken_is_named(
    number: int, kind: type[BlockrepError]
) -> None:
    failure = OSError(number, os.strerror(number))
    spool = Spool()
    with (
        mock.patch.object(tempfile.SpooledTemporaryFile, "write", side_effect=failure),
        pytest.raises(kind, match="TMPDIR") as caught,
    ):
        spool.write(b"x")
    assert tempfile.gettempdir() in str(caught.value)
    spool.close()
