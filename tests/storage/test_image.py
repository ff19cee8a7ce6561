"""Image files keep the contract: here, and, as root, on loop-mounted XFS, btrfs and ext4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.contract import StorageContract
from storage.image_volumes import ImageVolumes


class TestHere(StorageContract):
    """On the file system that temporary files are on."""

    @pytest.fixture
    def volumes(self, tmp_path: Path) -> Iterator[ImageVolumes]:
        volumes = ImageVolumes(tmp_path)
        yield volumes
        volumes.close()


@pytest.mark.root
class TestMounted(StorageContract):
    """On the file systems that the two ways are made for."""

    @pytest.fixture
    def volumes(self, mounted_directory: Path) -> Iterator[ImageVolumes]:
        volumes = ImageVolumes(mounted_directory)
        yield volumes
        volumes.close()
