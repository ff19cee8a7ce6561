"""The disk with a volatile cache keeps what was flushed, and of the rest what the seed says."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.harness.nbd import LVM_AREA_BYTES, SECTOR_BYTES, Medium, VolatileDisk

SIZE_BYTES = 2 << 20
START = LVM_AREA_BYTES


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Medium]:
    medium = Medium(tmp_path / "disk", SIZE_BYTES)
    yield medium
    medium.close()


def losing(chance: float) -> random.Random:
    """Return what keeps this share of the sectors."""
    rng = random.Random(1)
    rng.choice = lambda _chances: chance  # type: ignore[assignment, return-value]
    return rng


def test_what_was_flushed_survives_and_what_was_not_is_lost(medium: Medium) -> None:
    medium.write(START, b"a" * 1024)
    medium.flush()
    medium.write(START + 512, b"b" * 1024)
    assert medium.read(START, 2048) == b"a" * 512 + b"b" * 1024 + bytes(512)
    assert medium.lose_unflushed(losing(0)) == 2
    assert medium.read(START, 2048) == b"a" * 1024 + bytes(1024)


def test_writes_are_torn_at_sectors_and_reordered(medium: Medium) -> None:
    medium.write(START, b"a" * 65536)
    medium.write(START, b"b" * 65536)
    medium.lose_unflushed(losing(0.5))
    content = medium.read(START, 65536)
    sectors = {content[at : at + SECTOR_BYTES] for at in range(0, 65536, SECTOR_BYTES)}
    assert sectors == {b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES, bytes(SECTOR_BYTES)}


def test_the_area_of_lvm_is_durable_at_once(medium: Medium) -> None:
    medium.write(4096, b"a" * 512)
    medium.lose_unflushed(losing(0))
    assert medium.read(4096, 512) == b"a" * 512


def test_a_discard_reads_as_zeros_and_stays(medium: Medium) -> None:
    medium.write(START, b"a" * 4096)
    medium.discard(START + 1024, 1024)
    medium.write(START + 1024, b"b" * 512)
    assert medium.read(START, 4096) == b"a" * 1024 + b"b" * 512 + bytes(512) + b"a" * 2048
    medium.flush()
    medium.discard(0, SIZE_BYTES)
    medium.lose_unflushed(losing(1))
    assert medium.read(START, 4096) == bytes(4096)


@pytest.mark.skipif(not shutil.which("nbdcopy"), reason="nbdcopy (libnbd-bin) is not installed")
def test_a_client_that_is_not_ours_reads_what_it_wrote(tmp_path: Path) -> None:
    disk = VolatileDisk(tmp_path / "disk", SIZE_BYTES)
    uri = f"nbd+unix:///?socket={disk.address}"
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    try:
        subprocess.run(["nbdcopy", "--flush", str(source), uri], check=True, timeout=60)
        assert disk.writes > 0
        disk.lose_unflushed(losing(0))
        subprocess.run(["nbdcopy", uri, str(copy)], check=True, timeout=60)
    finally:
        disk.close()
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.skipif(not shutil.which("nbdcopy"), reason="nbdcopy (libnbd-bin) is not installed")
def test_nothing_is_served_after_a_cut(tmp_path: Path) -> None:
    disk = VolatileDisk(tmp_path / "disk", SIZE_BYTES)
    cuts: list[int] = []
    source = tmp_path / "source"
    source.write_bytes(b"x" * SIZE_BYTES)
    disk.cut_power_after(18, lambda: cuts.append(disk.writes))
    command = ["nbdcopy", "--request-size=65536", str(source)]
    uri = f"nbd+unix:///?socket={disk.address}"
    try:
        done = subprocess.run([*command, uri], check=False, timeout=60, capture_output=True)
        assert done.returncode != 0
        assert cuts == [18]
        assert disk.lose_unflushed(losing(0)) == 2 * 65536 // SECTOR_BYTES
    finally:
        disk.close()
