"""Runs many seeds on all processors: ``make soak SEEDS=0:20000``.

Prints what came up, and for each seed that failed the command that runs it again. Status 1 if one
failed.
"""

from __future__ import annotations

import argparse
import collections
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulation.running import simulate
from support.reports import record

_GROUP = 20
_SHOWN_FAILURES = 5
#: A seed takes milliseconds; one that takes so long does not end.
_SEED_SECONDS = 100
#: Locks and records are files; their content must not cost what a real disk costs.
_MEMORY = Path("/dev/shm")


@dataclass
class Tally:
    """What some seeds came to."""

    runs: int = 0
    pushes: int = 0
    looks: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.runs += other.runs
        self.pushes += other.pushes
        self.looks += other.looks
        self.faults += other.faults
        self.ends += other.ends
        self.failures |= other.failures


def run_seeds(seeds: Sequence[int]) -> Tally:
    """Run some seeds, whatever comes of each."""
    warnings.simplefilter("ignore")  # who crashed closes nothing
    signal.signal(signal.SIGALRM, _does_not_end)
    tally = Tally()
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        for seed in seeds:
            folder = Path(name) / str(seed)
            tally.runs += 1
            signal.alarm(_SEED_SECONDS)
            try:
                outcome = simulate(seed, folder)
            except Exception:  # whatever it is, the other seeds run
                tally.failures[seed] = traceback.format_exc(limit=-6)
            else:
                tally.pushes += outcome.pushes
                tally.looks += outcome.looks
                tally.faults.update(outcome.faults)
                tally.ends.update(outcome.ends)
            finally:
                signal.alarm(0)
            shutil.rmtree(folder, ignore_errors=True)
    return tally


def _collect_seldom() -> None:
    """Have Python look for garbage once in some seeds, and never at what was imported."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _does_not_end(_signal: int, _frame: object) -> None:
    msg = f"the seed did not end in {_SEED_SECONDS} seconds"
    raise TimeoutError(msg)


def run_all(first: int, end: int) -> Tally:
    """Run all seeds from ``first`` to before ``end``."""
    groups = [range(at, min(at + _GROUP, end)) for at in range(first, end, _GROUP)]
    tally = Tally()
    with multiprocessing.get_context("spawn").Pool(initializer=_collect_seldom) as pool:
        for done in _shown(pool.imap_unordered(run_seeds, groups), len(groups)):
            tally.add(done)
    return tally


def _shown(tallies: Iterable[Tally], total: int) -> Iterable[Tally]:
    """Pass on, with a line for each tenth."""
    for count, tally in enumerate(tallies, 1):
        for seed in tally.failures:
            print(f"seed {seed} failed; again: make soak SEEDS={seed}:{seed + 1}", flush=True)
        if count * 10 // total > (count - 1) * 10 // total:
            print(f"{count * 100 // total} %", flush=True)
        yield tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", metavar="FIRST:END")
    first, end = (int(word) for word in parser.parse_args().seeds.split(":"))
    started = time.monotonic()
    tally = run_all(first, end)
    seconds = time.monotonic() - started
    for title, counts in (("faults", tally.faults), ("ends", tally.ends)):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    print(
        f"seeds {first}:{end}, {tally.runs / seconds:.0f} a second: {tally.pushes} pushes,"
        f" {tally.looks} looks at both disks, {len(tally.failures)} failed"
    )
    for seed, text in sorted(tally.failures.items())[:_SHOWN_FAILURES]:
        print(f"\nseed {seed}:\n{text}")
    flips = tally.faults["link flip"]
    lies = sum(tally.ends[f"{lie} data found"] for lie in ("spoiled", "lost", "misdirected"))
    record("lines that flip a bit (simulated)", flips, 0)
    record("disks that lied, found by a comparison (simulated)", lies, 0)
    record("simulated runs", tally.runs, len(tally.failures), f"seeds {first}:{end}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
