"""Short runs of the fuzzer, fixed seeds; longer ones: ``python tests/fuzz/fuzz_session.py``."""

from __future__ import annotations

import tracemalloc

import pytest

from blockrep.protocol.limits import MAX_PAYLOAD_BYTES
from fuzz.fuzz_session import Fuzzer, main

MIB = 1024 * 1024


@pytest.mark.parametrize("seed", range(3))
def test_sessions_survive_whatever_arrives(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", str(seed), "--frames", "3000", "--seconds", "60"]) == 0
    assert "frames per second" in capsys.readouterr().out


def test_memory_does_not_grow_with_what_arrives() -> None:
    fuzzer = Fuzzer(seed=1)
    tracemalloc.start()
    try:
        for _ in range(300):
            fuzzer.run_session()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fuzzer.allocated_bytes <= MAX_PAYLOAD_BYTES
    assert peak_bytes < 4 * MAX_PAYLOAD_BYTES + 4 * MIB


def test_the_fuzzer_gets_past_the_first_checks() -> None:
    """Guards the fuzzer itself: a good part of its frames is taken, a good part refused."""
    fuzzer = Fuzzer(seed=2)
    while fuzzer.frames < 3000:
        fuzzer.run_session()
    assert fuzzer.refused > fuzzer.sessions / 4
    assert fuzzer.taken > fuzzer.frames / 4
