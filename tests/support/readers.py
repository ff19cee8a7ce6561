"""A snapshot reader over bytes, for tests of code that only reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from blockrep.model.extents import Extent


class BytesReader:
    """Reads from ``content``; counts the reads."""

    def __init__(self, content: bytes, allocated: list[Extent] | None = None) -> None:
        self.content = content
        self.size_bytes = len(content)
        self.reads: list[tuple[int, int]] = []
        self._allocated = [Extent(0, len(content))] if allocated is None else allocated

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.reads.append((offset_bytes, len(buffer)))
        buffer[:] = self.content[offset_bytes : offset_bytes + len(buffer)]

    def allocated(self) -> Iterator[Extent]:
        return iter(self._allocated)

    def remember(self) -> None:
        """Do nothing: it is a snapshot."""

    def confirm(self) -> None:
        pass
