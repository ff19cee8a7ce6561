"""Small files change atomically, and what is durable includes the names on the way to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockrep.storage.files import make_directories, opened_fd, write_durably
from storage.image_volumes import Crashing
from storage.volumes import CrashError


def test_a_crash_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for step in range(1, 20):
        path.write_bytes(b"old")
        try:
            with Crashing(step):
                write_durably(path, b"new, and longer")
        except CrashError:
            assert path.read_bytes() in {b"old", b"new, and longer"}
        else:
            assert path.read_bytes() == b"new, and longer"
            assert path.stat().st_mode & 0o777 == 0o600 or step == 1
            return
    pytest.fail("it never ends")


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), opened_fd(tmp_path / "link", os.O_RDWR | os.O_CREAT):
        pass
    assert not (tmp_path / "victim").exists()


def test_directories_are_made_durable_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def fsync(fd: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    make_directories(tmp_path / "a" / "b")
    assert seen == [str(tmp_path), str(tmp_path / "a")]
    for path in ("a", "a/b"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o700
    make_directories(tmp_path / "a" / "b")
    assert len(seen) == 2
