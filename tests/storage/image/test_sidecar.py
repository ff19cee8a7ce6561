"""What may be an image, who it is, and directories that somebody else could have made."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from blockrep.errors import BlockrepError, NoSpaceError, StorageError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.storage.image import kernel
from blockrep.storage.image.sidecar import ImageFile


def image(path: Path, role: str = "source") -> ImageFile:
    return ImageFile(VolumeName(path=str(path)), role)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "not a plain file"),
        ("fifo", "not a plain file"),
        ("nowhere/disk.img", "its directory does not exist"),
        (".blockrep/disk.img/source/state.json", "blockrep keeps its own files"),
        ("file/below", "its directory does not exist|cannot be looked at"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(VolumeError, match=message):
        image(tmp_path / name).stat()


@pytest.mark.root
def test_a_block_device_is_to_be_named_as_a_logical_volume(tmp_path: Path) -> None:
    device = tmp_path / "device"
    try:
        os.mknod(device, 0o60600, os.makedev(7, 0))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    with pytest.raises(VolumeError, match="VG/LV"):
        image(device).stat()


def test_identity_is_the_inodes(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    identity = image(path).identity()
    os.link(path, tmp_path / "link.img")
    (tmp_path / "symbolic.img").symlink_to(path)
    assert image(tmp_path / "link.img").identity() == identity
    assert image(tmp_path / "symbolic.img").identity() == identity
    (tmp_path / "other.img").touch()
    assert image(tmp_path / "other.img").identity() != identity


def test_an_inode_number_used_again_is_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    seen = set()
    for _ in range(5):
        path.touch()
        seen.add(image(path).identity())
        path.unlink()
    assert len(seen) == 5


def test_symbolic_links_lead_to_the_directory_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "disk.img").touch()
    (tmp_path / "link.img").symlink_to("real/disk.img")
    assert image(tmp_path / "link.img").directory == tmp_path / "real/.blockrep/disk.img/source"


def test_directories_are_for_our_eyes_only(tmp_path: Path) -> None:
    one = image(tmp_path / "disk.img", "target")
    one.make_directory()
    one.make_directory()
    for path in (".blockrep", ".blockrep/disk.img", ".blockrep/disk.img/target"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("level", [".blockrep", ".blockrep/disk.img", ".blockrep/disk.img/source"])
def test_planted_directories_are_refused(tmp_path: Path, level: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / level).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (tmp_path / level).symlink_to(elsewhere)
    with pytest.raises(VolumeError, match="not a directory that only its owner"):
        image(tmp_path / "disk.img").stat()
    (tmp_path / level).unlink()
    (tmp_path / level).mkdir()
    (tmp_path / level).chmod(0o777)
    with pytest.raises(VolumeError, match="not a directory that only its owner"):
        image(tmp_path / "disk.img").make_directory()


def refused(_path: Path) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_directories_of_another_user_are_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(StorageError, match=r"\.blockrep.*Permission denied.*such as root"):
        image(tmp_path / "disk.img").stat()
    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(StorageError, match="cannot be listed: Permission denied"):
        image(tmp_path / "disk.img").ours()


def test_probing_leaves_nothing_behind(tmp_path: Path) -> None:
    image(tmp_path / "disk.img").can_clone()
    assert not list(tmp_path.iterdir())
    assert not image(tmp_path / "nowhere" / "disk.img").can_clone()


@pytest.mark.root
def test_where_files_share_blocks_and_tell_where_is_found_out(mount_point: Path) -> None:
    assert image(mount_point / "disk.img").can_clone() == (mount_point.name != "ext4")


@pytest.mark.parametrize(
    "physical_of",
    [lambda logical, _file: logical, lambda _logical, _file: 0, lambda _logical, file: file << 20],
    ids=["as logical", "none", "own for each file"],
)
def test_maps_that_tell_nothing_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, physical_of: Callable[[int, int], int]
) -> None:
    """A network file system may clone, and tell any place: every delta would be empty, or all."""

    def raw_extents(fd: int, size_bytes: int) -> Iterator[kernel.RawExtent]:
        yield kernel.RawExtent(0, physical_of(0, os.fstat(fd).st_ino), size_bytes, 1)

    def clone(source_fd: int, target_fd: int) -> None:
        os.pwrite(target_fd, os.pread(source_fd, 1 << 20, 0), 0)

    monkeypatch.setattr(kernel, "clone", clone)
    monkeypatch.setattr(kernel, "raw_extents", raw_extents)
    assert not image(tmp_path / "disk.img").can_clone()


def test_maps_that_tell_places_are_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[bytes, int] = {}

    def raw_extents(fd: int, size_bytes: int) -> Iterator[kernel.RawExtent]:
        place = places.setdefault(os.pread(fd, size_bytes, 0), 1 + len(places))
        yield kernel.RawExtent(0, place << 20, size_bytes, 1)

    def clone(source_fd: int, target_fd: int) -> None:
        os.pwrite(target_fd, os.pread(source_fd, 1 << 20, 0), 0)

    monkeypatch.setattr(kernel, "clone", clone)
    monkeypatch.setattr(kernel, "raw_extents", raw_extents)
    assert image(tmp_path / "disk.img").can_clone()


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EMFILE, StorageError),
        (errno.ENOMEM, StorageError),
    ],
)
def test_what_passes_is_no_answer_to_whether_files_share_blocks(
    tmp_path: Path, number: int, error: type[BlockrepError]
) -> None:
    """Taken for "no", it would cost a target its older snapshots, and a source its base."""
    image = ImageFile(VolumeName(path=str(tmp_path / "disk.img")), "target")
    failure = OSError(number, os.strerror(number))
    with mock.patch.object(os, "open", side_effect=failure), pytest.raises(error, match="tried"):
        image.can_clone()
