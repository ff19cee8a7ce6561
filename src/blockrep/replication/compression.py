"""zstd level 1, one context for each direction and thread.

Imported only where compression was agreed on.
"""

from __future__ import annotations

import zstandard

from blockrep.errors import ProtocolError

__all__ = ["ZstdCompressor", "zstd_decompress"]

_LEVEL = 1


class ZstdCompressor:
    """Compresses payloads."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)

    def compress(self, content: memoryview) -> bytes:
        """Return one zstd frame."""
        return self._context.compress(content)


def zstd_decompress(payload: memoryview, unpacked_bytes: int) -> bytes:
    """Expand one zstd frame.

    Raises:
        ProtocolError: it is damaged, does not state its size, expands to anything but
            ``unpacked_bytes`` bytes, or is followed by something.
    """
    try:
        parameters = zstandard.get_frame_parameters(payload)
        if parameters.content_size != unpacked_bytes:
            msg = "a compressed payload does not expand to the size announced"
            raise ProtocolError(msg)
        content = zstandard.ZstdDecompressor().decompress(
            payload, max_output_size=unpacked_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        msg = f"a compressed payload is damaged: {error}"
        raise ProtocolError(msg) from error
    if len(content) != unpacked_bytes:
        msg = "a compressed payload does not expand to the size announced"
        raise ProtocolError(msg)
    return content
