"""Measures blockrep beside its peers: whole processes, interleaved, both ends on this machine.

``python benchmarks/run.py [--smoke] [--scenario NAME] [--list]``; see docs/performance.md. It
prints medians and ratios with their spread, and never fails because of a time; it fails if anything
else arrives than was sent.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import blockrep
import machine
import report
from blockrep.config.values import parse_size
from catalogue import CATALOGUE
from data import MIB
from peers import missing_packages
from scenario import Entry, Outcome, Place, Scenario, measure, run_checked
from workspace import Workspace, make_certificates, removed_at_end

_SMOKE_BYTES = 32 * MIB
_XFS_COPIES = 6  # source, two replicas, the peer's copy, and what changes in every round


def main() -> int:
    """Run the scenarios."""
    options = _parse()
    if options.list:
        print("\n".join(f"{one.name:18}{one.title}" for one in CATALOGUE))
        return 0
    # An installation has its bytecode; a checkout may not, and Python be forbidden to write it.
    compileall.compile_dir(Path(blockrep.__file__).parent, quiet=1)
    control = machine.pin_network()
    size_bytes = _SMOKE_BYTES if options.smoke else parse_size(options.size)
    rounds = 1 if options.smoke else options.rounds
    figures = {
        "format": report.FORMAT,
        "size_bytes": size_bytes,
        "rounds": rounds,
        "congestion_control": control,
        "destination": options.destination,
        **machine.describe(),
    }
    _introduce(figures, options)
    outcomes = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_temporary(options.folder)))
        disk = Path(stack.enter_context(_temporary(options.disk)))
        make_certificates(folder / "certs")
        for entry in _chosen(options.scenario, smoke=options.smoke):
            outcome = _run(entry, folder, disk, size_bytes, rounds, options)
            if outcome is not None:
                outcomes[entry.name] = outcome
    figures["scenarios"] = {name: report.as_json(one) for name, one in outcomes.items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        import plot  # noqa: PLC0415 - its library is optional

        plot.scenarios(figures, options.plot)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures blockrep beside its peers.")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="32 MiB, one round, a scenario of each kind: does it work?",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[one.name for one in CATALOGUE],
        metavar="NAME",
        help="only this one; several allowed; default: all",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--size", default="2G", help="of the volume, default 2G")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument(
        "--destination",
        choices=("in-place", "new"),
        default="in-place",
        help="peers of a full copy overwrite a file (the default), or make one as blockrep does",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=machine.default_folder(),
        help="where to work, in memory; default %(default)s",
    )
    parser.add_argument(
        "--disk",
        type=Path,
        default=Path("/var/tmp"),
        metavar="FOLDER",
        help="for what is measured on a disk; default %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw the ratios (needs the group bench)"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FOLDER",
        help="run the first tool of each scenario once more, and write what its threads did there",
    )
    return parser.parse_args()


def _chosen(names: list[str] | None, *, smoke: bool) -> list[Entry]:
    if names:
        return [one for one in CATALOGUE if one.name in names]
    return [one for one in CATALOGUE if not (smoke and one.like)]


def _temporary(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="blockrep-bench-", dir=folder)


def _introduce(figures: dict[str, object], options: argparse.Namespace) -> None:
    print(
        f"{int(str(figures['size_bytes'])) // MIB} MiB, rounds: {figures['rounds']}; "
        f"{figures['cores']} cores, {figures['processor']}, Linux {figures['kernel']}; "
        f"TCP {figures['congestion_control']}"
    )
    kind = "memory" if machine.is_in_memory(options.folder) else "NOT in memory"
    where = {
        "in-place": "of peers overwritten in place, of blockrep in memory that was just touched",
        "new": "of all tools new, in memory that was just touched",
    }
    print(f"work in {options.folder} ({kind}); destinations {where[options.destination]}")
    missing = missing_packages()
    if missing:
        print(f"not installed: {', '.join(missing)}")
        print(f"  Debian: apt-get install {' '.join(sorted(set(missing.values())))}")


def _run(
    entry: Entry,
    folder: Path,
    disk: Path,
    size_bytes: int,
    rounds: int,
    options: argparse.Namespace,
) -> Outcome | None:
    """Prepare a scenario, run it, print its table; None: it cannot be run here, which is said."""
    size_bytes = max(int(size_bytes * entry.share) // MIB, 8) * MIB
    with ExitStack() as stack:
        if not stack.enter_context(machine.congestion_control(entry.congestion)):
            print(f"\n{entry.title}: skipped, there is no TCP {entry.congestion} here")
            return None
        near: Path | None = stack.enter_context(removed_at_end(folder / entry.name))
        assert near is not None
        if entry.place is Place.XFS:
            near = stack.enter_context(machine.mounted_xfs(near, _XFS_COPIES * size_bytes))
        if near is None:
            print(f"\n{entry.title}: skipped, it needs root, mkfs.xfs and a loop device")
            return None
        far = near
        if entry.place is Place.DISK:
            far = stack.enter_context(removed_at_end(disk / entry.name))
        fresh = entry.fresh or options.destination == "new"
        scenario = entry.make(Workspace(near, far, folder / "certs", fresh), size_bytes)
        outcome = measure(entry, scenario, rounds)
        print(report.table(outcome), flush=True)
        if options.profile:
            _profile(entry, scenario, rounds, options.profile)
        return outcome


def _profile(entry: Entry, scenario: Scenario, rounds: int, folder: Path) -> None:
    """Run the first tool, which is blockrep, once more, sampled."""
    assert scenario.product is not None
    samples = folder / entry.name
    samples.mkdir(parents=True, exist_ok=True)
    scenario.product.samples = samples.resolve()
    scenario.change(rounds)
    run_checked(entry, scenario.tools[0])
    for note in sorted(samples.glob("*.json")):
        print(f"\n  {note}")
        found = json.loads(note.read_text())
        threads = sorted(found["thread_cpu_seconds"].items(), key=lambda one: -one[1])
        print("\n".join(f"    {seconds:8.3f} s  thread {name}" for name, seconds in threads[:8]))
        print("\n".join(f"    {count:8}    {place}" for place, count in found["places"][:12]))


if __name__ == "__main__":
    sys.exit(main())
