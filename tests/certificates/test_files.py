"""Keys are written all or not at all, never over anything, never where others could change them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockrep.certificates.files import KEY_MODE, prepare_directory, write_new_files
from blockrep.errors import ConfigurationError, StorageError


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a/b")
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    prepare_directory(tmp_path / "a/b")


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(ConfigurationError, match=r"others may write .*; run: chmod go-w"):
        prepare_directory(folder)
    folder.chmod(0o755)
    prepare_directory(folder)


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/x"):
        with pytest.raises(ConfigurationError, match="is not a directory"):
            prepare_directory(path)


def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path) -> None:
    for mask in (0o000, 0o777):
        path = tmp_path / f"{mask}.key"
        before = os.umask(mask)
        try:
            write_new_files([(path, b"secret", KEY_MODE)])
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes() == b"secret"


def test_one_that_exists_keeps_all_from_being_written(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    with pytest.raises(ConfigurationError, match=r"old: exists already .* nothing was changed"):
        write_new_files([(tmp_path / "new", b"x", KEY_MODE), (old, b"y", KEY_MODE)])
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_new_files([(tmp_path / "link", b"x", KEY_MODE)])
    assert not (tmp_path / "elsewhere").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="cannot be written: No space left"):
        write_new_files([(tmp_path / "a", b"x", KEY_MODE)])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: No such file"):
        write_new_files([(tmp_path / "none/a", b"x", KEY_MODE)])
