"""The catalogue: order of commits, and what sweeping may remove."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.storage.image.catalogue import Catalogue
from blockrep.storage.image.records import GoodRecord, Published
from blockrep.storage.image.sidecar import ImageFile

IDS = [f"{number:032x}" for number in (7, 3, 5)]


def good(snapshot_id: str, order: int) -> GoodRecord:
    snapshot = Snapshot(snapshot_id, "b" * 32, order, 1_700_000_000, 4096, committed=True)
    return GoodRecord(snapshot, order, "clone", None)


@pytest.fixture
def image(tmp_path: Path) -> ImageFile:
    image = ImageFile(VolumeName(path=str(tmp_path / "disk.img")), "target")
    image.make_directory()
    return image


@pytest.fixture
def catalogue(image: ImageFile) -> Catalogue:
    return Catalogue(image)


def test_good_snapshots_come_in_the_order_of_their_commits(catalogue: Catalogue) -> None:
    for order, snapshot_id in enumerate(IDS):
        catalogue.write_good(good(snapshot_id, order))
    assert [one.snapshot.id for one in catalogue.goods()] == IDS
    catalogue.drop_good(catalogue.goods()[0])
    assert [one.snapshot.id for one in catalogue.goods()] == IDS[1:]


def test_nothing_is_read_from_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    catalogue = Catalogue(ImageFile(VolumeName(path=str(tmp_path / "x.img")), "target"))
    catalogue.sweep()
    assert not catalogue.goods()
    assert catalogue.staging() is None
    assert catalogue.published() is None


def test_sweeping_removes_what_no_record_speaks_of(image: ImageFile, catalogue: Catalogue) -> None:
    catalogue.write_good(good(IDS[0], 1))
    catalogue.write_published(Published(IDS[0], None))
    kept = [f"{IDS[0]}.img", f"{IDS[0]}.redo", "notes.txt", "staging", f"{IDS[1]}.backup"]
    swept = [
        f"{IDS[1]}.img", f"{IDS[1]}.redo", f"{IDS[1]}.json.tmp", f"{IDS[0]}.json.tmp",
        "staging.img", "staging.redo", "staging.json.tmp", "publishing.img", "published.json.tmp",
    ]  # fmt: skip
    for name in (*kept, *swept):
        (image.directory / name).touch()
    catalogue.sweep()
    left = sorted(one.name for one in image.directory.iterdir())
    assert left == sorted([*kept, f"{IDS[0]}.json", "published.json"])
