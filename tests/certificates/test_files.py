"""Keys are written all or not at all, never over anything, never where others could change them."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from blockrep.certificates import files
from blockrep.certificates.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    check_not_there,
    prepare_directory,
    replace_file,
    write_new_files,
)
from blockrep.errors import ConfigurationError, StorageError
from storage.power_cuts import PowerCut


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


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(StorageError, match="the directory cannot be created"):
        prepare_directory(Path("/proc/certs"))


def test_what_comes_to_exist_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else writes the second file after we looked."""
    old = tmp_path / "old"
    old.write_bytes(b"old")
    monkeypatch.setattr(files, "check_not_there", lambda _paths: None)
    with pytest.raises(ConfigurationError, match=r"old: exists already .* nothing was changed"):
        write_new_files([(tmp_path / "new", b"x", KEY_MODE), (old, b"y", KEY_MODE)])
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_key_that_exists_is_found_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="exists already"):
        check_not_there([tmp_path / "free", tmp_path / "there"])
    check_not_there([tmp_path / "free"])


def test_replaced_over_what_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_bytes(b"old")
    (tmp_path / ".a.pem.new").write_bytes(b"half")
    replace_file(path, b"new", CERTIFICATE_MODE)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == CERTIFICATE_MODE
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_replaced_stays_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pem").mkdir()
    with pytest.raises(StorageError, match=r"a\.pem: cannot be replaced"):
        replace_file(tmp_path / "a.pem", b"new", KEY_MODE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pem"]


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the names last is not known: nothing is left, and it is told."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StorageError, match=f"{tmp_path}: cannot be written: Input/output error"):
        write_new_files([(tmp_path / "a", b"x", KEY_MODE)])
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_loses_nothing_that_was_written(tmp_path: Path, seed: int) -> None:
    for choice in range(4):
        folder, graves = tmp_path / f"certs{choice}", tmp_path / f"graves{choice}"
        folder.mkdir()
        graves.mkdir()
        (folder / "a.pem").write_bytes(b"old")
        disk = PowerCut(folder, graves, random.Random(seed))
        with disk:
            write_new_files([(folder / "a.key", b"key", KEY_MODE)])
            replace_file(folder / "a.pem", b"new", CERTIFICATE_MODE)
        disk.lose(choice)
        assert (folder / "a.key").read_bytes() == b"key"
        assert (folder / "a.pem").read_bytes() == b"new"


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_meanwhile_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    class CutError(Exception):
        """The power is gone."""

    def cut(_directory: Path) -> None:
        raise CutError

    found = set()
    for choice in range(8):
        folder, graves = tmp_path / f"certs{choice}", tmp_path / f"graves{choice}"
        folder.mkdir()
        graves.mkdir()
        (folder / "a.pem").write_bytes(b"old")
        disk = PowerCut(folder, graves, random.Random(seed))
        with disk, monkeypatch.context() as patch:
            # The new file is durable, its being in the place of the old one is not.
            syncs = iter([files._sync_directory, cut])
            patch.setattr(files, "_sync_directory", lambda path, syncs=syncs: next(syncs)(path))
            with pytest.raises(CutError):
                replace_file(folder / "a.pem", b"new", CERTIFICATE_MODE)
        disk.lose(choice)
        found.add((folder / "a.pem").read_bytes())
    assert found == {b"old", b"new"}
