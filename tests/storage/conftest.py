"""What the storage tests share: mounted file systems, each made once for the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.mounts import MAKERS, CannotMountError, mounted


@pytest.fixture(scope="session", params=sorted(MAKERS))
def mount_point(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A mounted file system; every kind in turn."""
    directory = tmp_path_factory.mktemp("mounts")
    manager = mounted(request.param, directory)
    try:
        path = manager.__enter__()
    except CannotMountError as error:
        pytest.skip(str(error))
    yield path
    manager.__exit__(None, None, None)


@pytest.fixture
def mounted_directory(mount_point: Path) -> Iterator[Path]:
    """An empty directory on it."""
    directory = mount_point / "test"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)
