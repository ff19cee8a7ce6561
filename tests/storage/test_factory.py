"""A volume's name decides its kind; nothing is touched before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.model.names import parse_volume
from blockrep.storage.factory import open_source, open_target
from blockrep.storage.image.source import ImageSource
from blockrep.storage.image.target import ImageTarget
from blockrep.storage.interface import StorageSettings
from blockrep.storage.lvm.source import LvmSource
from blockrep.storage.lvm.target import LvmTarget


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [("volg/thin", LvmSource, LvmTarget), ("/nowhere/disk.img", ImageSource, ImageTarget)],
)
def test_the_name_decides_the_kind(
    name: str, source: type[object], target: type[object], tmp_path: Path
) -> None:
    settings = StorageSettings(tmp_path / "state", tmp_path / "run")
    assert isinstance(open_source(parse_volume(name), settings), source)
    assert isinstance(open_target(parse_volume(name), settings), target)
    assert list(tmp_path.iterdir()) == []
