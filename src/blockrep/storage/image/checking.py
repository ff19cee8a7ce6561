"""Checks of a directory with image files: who may write, what is unfinished, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from blockrep.errors import BlockrepError
from blockrep.model.findings import Finding, Level
from blockrep.model.names import VolumeName
from blockrep.storage.image.catalogue import Catalogue
from blockrep.storage.image.holding import Hold
from blockrep.storage.image.publishing import Publisher
from blockrep.storage.image.sidecar import DIRECTORY_NAME, ImageFile

__all__ = ["check_images"]


def check_images(directory: Path) -> Iterator[Finding]:
    """Yield what is found of the replicas below ``directory``."""
    if not directory.is_dir():
        yield Finding(
            Level.ERROR, str(directory), "is not a directory", f"mkdir -m 700 {directory}", 3
        )
        return
    for sidecar in sorted(directory.rglob(f"{DIRECTORY_NAME}/*/target")):
        image = sidecar.parents[2] / sidecar.parent.name
        try:
            yield from _check(ImageFile(VolumeName(path=str(image)), "target"))
        except BlockrepError as error:
            yield Finding.of_error(error)


def _publish(image: ImageFile, catalogue: Catalogue) -> None:
    with Hold(image):
        Publisher(image, catalogue).publish(catalogue.goods()[-1])


def _check(image: ImageFile) -> Iterator[Finding]:
    present = image.stat() is not None
    catalogue = Catalogue(image)
    goods = catalogue.goods()
    count = f"{len(goods)} good snapshot{'' if len(goods) == 1 else 's'}"
    if catalogue.copying_path.exists() and not goods:
        yield Finding(
            Level.WARNING,
            str(catalogue.copying_path),
            "is what was a replica, half updated, and nothing tells of what",
            f"look at it; if it is not needed: rm {catalogue.copying_path}",
        )
    elif catalogue.copying_path.exists():
        yield Finding(
            Level.WARNING,
            str(image.path),
            f"is not in its place but in {catalogue.copying_path}: it is being updated, or that was"
            " interrupted",
            "blockrep doctor --fix, or the next push, finishes that and puts it back",
            fix=partial(_publish, image, catalogue),
        )
    elif catalogue.staging() is not None:
        what = "has an unfinished transfer: the next push resumes"
        yield Finding(Level.OK, str(image.path), what)
    elif present:
        yield Finding(Level.OK, str(image.path), f"has {count}")
    elif goods:
        yield Finding(
            Level.WARNING,
            str(image.path),
            f"is gone, but for {count} of it: perhaps the last copies",
            f"if they are not needed any more: rm -r {image.directory.parent}",
        )
