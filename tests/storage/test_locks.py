"""One holder at a time for a volume, across processes; a dead holder holds nothing (I4)."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from blockrep.errors import BusyError, UnsupportedHostError
from blockrep.model.names import VolumeName, parse_volume
from blockrep.storage.locks import FileLock, VolumeLock, lock_key

HOLD = """
import sys, pathlib
from blockrep.storage.locks import VolumeLock
VolumeLock(pathlib.Path(sys.argv[1]), "vg/lv", "push by origin")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    with VolumeLock(tmp_path, "vg/lv", "push by origin"):
        with pytest.raises(BusyError, match="in use by push by origin"):
            VolumeLock(tmp_path, "vg/lv", "list")
        VolumeLock(tmp_path, "vg/other", "list").release()
    VolumeLock(tmp_path, "vg/lv", "list").release()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError):
            VolumeLock(tmp_path, "vg/lv", "second")
        process.kill()
        process.wait()
    VolumeLock(tmp_path, "vg/lv", "second").release()


@pytest.mark.parametrize("key", ["../../etc/passwd", "a" * 5000, "new\nline", "\udcff"])
def test_no_key_leaves_the_lock_directory(tmp_path: Path, key: str) -> None:
    with VolumeLock(tmp_path / "run", key, "x"):
        assert [one.parent.name for one in tmp_path.rglob("*.lock")] == ["locks"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsupportedHostError, match="file"):
        VolumeLock(tmp_path / "file", "vg/lv", "x")


def test_a_path_has_one_key_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "real" / "link.img").symlink_to("disk.img")
    monkeypatch.chdir(tmp_path / "real")
    spellings = ("./disk.img", "./link.img", f"{tmp_path}/folder/disk.img", "../real/./disk.img")
    keys = {lock_key("target", VolumeName(path=one)) for one in spellings}
    assert keys == {f"target {tmp_path.resolve()}/real/disk.img"}


def test_roles_and_what_a_source_is_held_for_are_told_apart() -> None:
    name = parse_volume("vg/lv")
    assert lock_key("target", name) == "target vg/lv"
    keys = {lock_key("source", name, one) for one in ("tls://a:1/b/{0}", "tls://a:1/b/c")}
    assert len({*keys, lock_key("target", name)}) == 3


def test_a_lock_that_cannot_be_had_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UnsupportedHostError, match="No locks"):
        FileLock(tmp_path / "lock", "disk.img", "x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What frees room takes the lock first."""

    def full(*_args: object) -> int:
        raise OSError(number, "no room")

    monkeypatch.setattr("os.pwrite", full)
    with VolumeLock(tmp_path, "vg/lv", "prune"), pytest.raises(BusyError, match="in use by"):
        VolumeLock(tmp_path, "vg/lv", "list")
