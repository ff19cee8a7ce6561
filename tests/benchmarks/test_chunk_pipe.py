"""The stand-in for thin_send and thin_recv copies the extents that it is given, no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import chunk_pipe
import data
from data import MIB


def test_the_extents_arrive_in_their_places(tmp_path: Path) -> None:
    source, target, listed = tmp_path / "source", tmp_path / "target", tmp_path / "extents"
    data.make_mixed(source, 4 * MIB)
    target.write_bytes(bytes([1]) * (4 * MIB))
    extents = [(0, 4096), (MIB - 512, 2 * MIB), (4 * MIB - 4096, 4096)]
    listed.write_text("".join(f"{offset} {length}\n" for offset, length in extents))
    program = [sys.executable, "-I", "-S", chunk_pipe.__file__]
    sent = subprocess.run([*program, "send", source, listed], stdout=subprocess.PIPE, check=True)
    subprocess.run([*program, "receive", target], input=sent.stdout, check=True)
    expected = bytearray([1]) * (4 * MIB)
    content = source.read_bytes()
    for offset, length in extents:
        expected[offset : offset + length] = content[offset : offset + length]
    assert target.read_bytes() == expected
