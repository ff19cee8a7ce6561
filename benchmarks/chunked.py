"""Runs ``blockrep`` on image files as if changes were known by the chunk, as dm-thin knows them.

``python chunked.py CHUNK_BYTES ARGUMENT...``. The benchmark has no thin pool; XFS knows changes by
the block. All else is the product's.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator

from blockrep import programs
from blockrep.model.extents import Extent, ExtentKind, align_outward, merge_adjacent
from blockrep.model.snapshots import Snapshot, VolumeInfo
from blockrep.storage.image import source


def chunked_argv(chunk_bytes: int) -> list[str]:
    """Return the command that runs ``blockrep`` so; its arguments follow."""
    return [sys.executable, __file__, str(chunk_bytes)]


def by_chunks(extents: Iterable[Extent], chunk_bytes: int, size_bytes: int) -> Iterator[Extent]:
    """Yield the chunks that changed extents touch, runs of them merged.

    Raises:
        ValueError: something was discarded, which is not for this.
    """
    return merge_adjacent(align_outward(map(_written, extents), chunk_bytes, size_bytes))


def _written(extent: Extent) -> Extent:
    if extent.kind is not ExtentKind.DATA:
        raise ValueError(f"only what was written can be rounded to chunks: {extent}")
    return extent


class ChunkedSource(source.ImageSource):
    """An image on XFS whose changes are known by the chunk."""

    chunk_bytes = 0

    def describe(self) -> VolumeInfo:
        """Look at the file."""
        return dataclasses.replace(super().describe(), block_bytes=self.chunk_bytes)

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield the chunks that differ; all that is allocated without a base."""
        extents = super().delta(base, new)
        if base is None or new is None:
            return extents
        return by_chunks(extents, self.chunk_bytes, new.size_bytes)


def main(chunk_bytes: int) -> int:
    """Run ``blockrep`` with the rest of the command line."""
    ChunkedSource.chunk_bytes = chunk_bytes
    source.ImageSource = ChunkedSource  # type: ignore[misc]
    return programs.client()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv.pop(1))))
