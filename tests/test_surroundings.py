"""Closed files and a removed folder are told as such; everything else stays a defect."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from blockrep.errors import StorageError, UsageError
from blockrep.surroundings import explain_surroundings


def test_a_closed_file_is_named() -> None:
    explained = explain_surroundings(PermissionError(errno.EACCES, "Permission denied", "/a/file"))
    assert isinstance(explained, StorageError)
    assert str(explained).startswith("/a/file: Permission denied; ")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "Operation not permitted"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        FileNotFoundError(errno.ENOENT, "No such file", "/a/file"),
        ValueError("oops"),
    ],
)
def test_what_says_nothing_of_the_surroundings_is_a_defect(error: Exception) -> None:
    assert explain_surroundings(error) is None


def test_a_removed_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        os.path.realpath("./disk.img")
    explained = explain_surroundings(caught.value)
    assert isinstance(explained, UsageError)
    assert "current directory was removed" in str(explained)
    # That of a file with a name is something else, wherever we are.
    assert explain_surroundings(FileNotFoundError(errno.ENOENT, "No such file", "/a")) is None
