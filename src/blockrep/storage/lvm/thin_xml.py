"""What thin_delta and thin_dump print, parsed as it arrives. Pure.

Elements are read by the names of their attributes: versions 0.9 and 1.x differ in the attributes'
order, in further attributes, and in whether neighbours are merged. Exit status 0 is no proof of
completeness: the output must end with ``</superblock>``, and a dump must have its ``<device>``,
which ``thin_dump --dev-id`` leaves out, at status 0, for an id that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import chain
from typing import NamedTuple
from xml.parsers import expat

from blockrep.errors import StorageError

__all__ = ["Run", "RunKind", "ThinXml"]

_SECTOR_BYTES = 512


class RunKind(IntEnum):
    """What is known of a run of chunks. MAPPED: from a dump; the others: from a comparison."""

    SAME = 0
    DIFFERENT = 1
    LEFT_ONLY = 2
    RIGHT_ONLY = 3
    MAPPED = 4


class Run(NamedTuple):
    """Contiguous chunks of one kind, in bytes of the volume."""

    kind: RunKind
    offset_bytes: int
    length_bytes: int


_DELTA_KINDS = {
    "same": RunKind.SAME,
    "different": RunKind.DIFFERENT,
    "left_only": RunKind.LEFT_ONLY,
    "right_only": RunKind.RIGHT_ONLY,
}
_STRUCTURE = frozenset({"superblock", "diff", "device"})


class ThinXml:
    """Parses one output; attributes are valid after :meth:`runs` ended.

    Attributes:
        transaction: of the metadata that was read.
        chunk_bytes: of the pool.
    """

    def __init__(self) -> None:
        self.transaction = -1
        self.chunk_bytes = 0
        self._found: list[Run] = []
        self._seen_device = self._ended = False
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def runs(self, blocks: Iterable[bytes]) -> Iterator[Run]:
        """Yield the runs, ascending, while the output arrives.

        Raises:
            StorageError: the output is not whole, or is not what these tools print.
        """
        position = 0
        try:
            # The end may bring elements too: expat from 2.6 on defers what a block cut.
            for block, is_end in chain(((one, False) for one in blocks), [(b"", True)]):
                self._parser.Parse(block, is_end)
                found, self._found = self._found, []
                for run in found:
                    if run.offset_bytes < position or run.length_bytes <= 0:
                        raise _unusable(f"{run} is out of order")
                    position = run.offset_bytes + run.length_bytes
                    yield run
        except (expat.ExpatError, KeyError, ValueError) as error:
            raise _unusable(repr(error)) from error
        if not self._ended or not self._seen_device:
            raise _unusable("the volume is not in it" if self._ended else "it ends early")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        kind = _DELTA_KINDS.get(name)
        if kind is not None:
            self._add(kind, int(attributes["begin"]), int(attributes["length"]))
        elif name == "range_mapping":
            self._add(RunKind.MAPPED, int(attributes["origin_begin"]), int(attributes["length"]))
        elif name == "single_mapping":
            self._add(RunKind.MAPPED, int(attributes["origin_block"]), 1)
        elif name == "superblock":
            self.chunk_bytes = int(attributes["data_block_size"]) * _SECTOR_BYTES
            self.transaction = int(attributes["transaction"])
        elif name not in _STRUCTURE:
            # <def> and <ref> would hide mappings of the volume.
            raise ValueError(f"unknown element {name!r}")
        if name in {"diff", "device"}:
            self._seen_device = True

    def _end(self, name: str) -> None:
        self._ended = name == "superblock"

    def _add(self, kind: RunKind, begin: int, length: int) -> None:
        chunk_bytes = self.chunk_bytes
        self._found.append(Run(kind, begin * chunk_bytes, length * chunk_bytes))


def _unusable(detail: str) -> StorageError:
    return StorageError(
        f"the output of the thin provisioning tools cannot be used: {detail[:200]}",
        safe="nothing was changed",
        next_step="check the pool's metadata (dmsetup status, thin_check), then try again",
    )
