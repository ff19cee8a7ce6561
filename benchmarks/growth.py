"""Measures how blockrep's planning grows with the volume, the change and the snapshots kept.

``python benchmarks/growth.py [--smoke]``; see docs/performance.md. Each measurement is a process of
its own, which plans as the product does: thin_delta on a pool's metadata, its output parsed, the
plan spooled. The metadata is real and lies in a file; what LVM would answer is made up, so neither
LVM nor device-mapper is needed, but root is, as by the product.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
from blockrep.model.names import VolumeName
from blockrep.replication.plan import SpooledPlan
from blockrep.storage.interface import StorageSettings
from blockrep.storage.lvm.source import LvmSource
from blockrep.storage.lvm.target import LvmTarget
from blockrep.storage.lvm.versions import check_thin_tools
from data import GIB
from growth_cases import ORIGIN, REPLICA, SERIES, Case
from peers import missing_packages
from report import FORMAT, aligned
from thin_pool import CHUNK_BYTES, VG, FilePool, Volume, write_metadata

_TIB = 1024 * GIB
_SIZES = (GIB, 16 * GIB, 256 * GIB, 4 * _TIB, 16 * _TIB)
_CHANGES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SNAPSHOTS = (1, 10, 100, 1_000)
#: Name, title, unit of what grows, its values, those of a smoke run.
_SERIES: tuple[tuple[str, str, str, Sequence[int], Sequence[int]], ...] = (
    ("volume", "volume size, the same change", "bytes", _SIZES, (GIB, 16 * _TIB)),
    ("changes", "changed extents", "extents", _CHANGES, (1_000, 10_000)),
    ("snapshots", "snapshots at the source, the same change", "snapshots", _SNAPSHOTS, (1, 100)),
    ("goods", "good snapshots of the replica: a look at it", "snapshots", _SNAPSHOTS, (1, 100)),
)
_NEEDS = ("thin_restore", "thin_delta")
_METADATA = "metadata.bin"
_HEADINGS = ("", "found", "seconds", "thin_delta s", "MiB peak")


@dataclass(frozen=True)
class Figures:
    """What one process took.

    Attributes:
        found: extents of the plan, or snapshots.
        seconds: from the first look at the volumes to the end of the plan, read once more, as for
            sending it.
        tool_seconds: of these, while thin_delta ran, whose output is parsed meanwhile.
        peak_mib: of the planning process.
    """

    found: int
    seconds: float
    tool_seconds: float
    peak_mib: float


def main() -> int:
    """Run every series; print tables."""
    if sys.argv[1:2] == ["--child"]:
        name, value, folder = sys.argv[2:]
        here = _look_here if name == "goods" else _plan_here
        print(json.dumps(asdict(here(SERIES[name](int(value)), Path(folder)))))
        return 0
    options = _parse()
    lacking = sorted(set(missing_packages()) & set(_NEEDS))
    if lacking or os.geteuid() != 0:
        print(f"skipped: it needs root, as the product does, and {' and '.join(_NEEDS)}")
        if lacking:
            print("  Debian: apt-get install thin-provisioning-tools")
        return 0
    rounds = 1 if options.smoke else options.rounds
    figures: dict[str, object] = {"format": FORMAT, "rounds": rounds, **machine.describe()}
    found: dict[str, object] = {}
    for name, title, unit, values, smoke_values in _SERIES:
        chosen = smoke_values if options.smoke else values
        if name == "changes":
            chosen = [one for one in chosen if one <= options.most]
        print(f"\n{title}")
        points = _run_series(name, chosen, rounds, options.folder)
        found[name] = {"title": title, "unit": unit, "points": points}
    figures["series"] = found
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        import plot  # noqa: PLC0415 - its library is optional

        plot.growth(figures, options.plot)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures how blockrep's planning grows.")
    parser.add_argument("--smoke", action="store_true", help="small, one round: does it work?")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument(
        "--most", type=int, default=_CHANGES[-1], metavar="N", help="changed extents at most"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/var/tmp"),
        help="for metadata, not in memory: the thin tools read past the cache; default %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw them (needs the group bench)"
    )
    return parser.parse_args()


def _run_series(
    name: str, values: Sequence[int], rounds: int, folder: Path
) -> list[dict[str, object]]:
    """Run the cases of a series; print its table; return the medians.

    Raises:
        SystemExit: a plan is not what was changed.
    """
    points: list[dict[str, object]] = []
    lines: list[Sequence[str]] = [_HEADINGS]
    for value in values:
        case = SERIES[name](value)
        with tempfile.TemporaryDirectory(prefix="blockrep-bench-", dir=folder) as work:
            write_metadata(Path(work, _METADATA), case.devices(), case.pool_chunks)
            runs = [_plan(name, value, Path(work)) for _ in range(rounds)]
        expected = value if name == "goods" else case.changed
        if {one.found for one in runs} != {expected}:
            raise SystemExit(f"{name}, {case.label}: not {expected} were found: {runs}")
        middle = sorted(runs, key=lambda one: one.seconds)[rounds // 2]
        points.append({"value": value, "rounds": [one.seconds for one in runs], **asdict(middle)})
        numbers = (f"{middle.seconds:.3f}", f"{middle.tool_seconds:.3f}", f"{middle.peak_mib:.1f}")
        lines.append((case.label, f"{middle.found:,}", *numbers))
    print("\n".join(aligned(lines)), flush=True)
    return points


def _plan(name: str, value: int, folder: Path) -> Figures:
    argv = [sys.executable, __file__, "--child", name, str(value), str(folder)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    return Figures(**json.loads(done.stdout))


def _plan_here(case: Case, folder: Path) -> Figures:
    """Plan a transfer, as a push does from its first look at the volumes to the first byte."""
    pool, settings = _prepare(case, case.source_volumes(), folder)
    started = time.monotonic()
    source = LvmSource(VolumeName(vg=VG, lv=ORIGIN), settings, pool)
    source.describe()
    base, new = source.snapshots()[-2:]
    delta = source.delta(base, new)
    with SpooledPlan(delta, new.size_bytes, chunk_bytes=CHUNK_BYTES) as plan:
        extents = sum(1 for _ in plan)
    return _figures(extents, started, pool)


def _look_here(case: Case, folder: Path) -> Figures:
    """Look at a replica, as a server does before each transfer: recovery, and who wrote to it."""
    pool, settings = _prepare(case, case.target_volumes(), folder)
    started = time.monotonic()
    replica = LvmTarget(VolumeName(vg=VG, lv=REPLICA), settings, pool).inspect()
    if not replica.owned or replica.drifted:
        raise SystemExit(f"the replica is not as it was made: {replica}")
    return _figures(len(replica.snapshots), started, pool)


def _prepare(
    case: Case, volumes: Sequence[Volume], folder: Path
) -> tuple[FilePool, StorageSettings]:
    pool = FilePool(folder / _METADATA, volumes, case.pool_chunks)
    check_thin_tools(pool)  # the same for every case: once for a process
    pool.take_log()
    return pool, StorageSettings(folder / "state", folder / "run")


def _figures(found: int, started: float, pool: FilePool) -> Figures:
    seconds = time.monotonic() - started
    tool_seconds = sum(one.seconds for one in pool.take_log() if one.argv[0] == "thin_delta")
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return Figures(found, seconds, tool_seconds, peak_kib / 1024)


if __name__ == "__main__":
    sys.exit(main())
