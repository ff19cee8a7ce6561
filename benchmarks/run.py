"""Measures blockrep beside its peers: whole processes, interleaved, both ends on this machine.

Usage: ``python benchmarks/run.py [--smoke] [--size 2G] [--rounds 5] [--json FILE]``. As root the
runs happen in a network namespace of
their own with a pinned congestion control (BBR, the default of some machines, paces loopback).
Prints medians
and ratios with their spread; never fails because of a time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import Result, warm_pages
from ssh import NEEDS, SshBench
from tools import Bench, Tool

from blockrep.config.values import parse_size

MIB = 1024 * 1024
MEMORY_LIMIT_KIB = 200 * 1024


@dataclass(frozen=True)
class Scenario:
    """Something to measure. ``reset``: before each run; ``check``: after each run of blockrep."""

    name: str
    tools: list[Tool]
    reset: Callable[[], None]
    reference: str


def make_source(path: Path, size_bytes: int) -> None:
    """Write half random data, a quarter text, a quarter zeros, in runs of 1 MiB.

    Always the same.
    """
    chooser = random.Random(1)
    text = b"".join(
        b"%08d the quick brown fox jumps over the lazy dog\n" % n for n in range(30_000)
    )
    with path.open("wb") as file:
        for index in range(size_bytes // MIB):
            kind = index % 4
            if kind < 2:
                file.write(chooser.randbytes(MIB))
            elif kind == 2:
                start = chooser.randrange(0, len(text) - MIB)
                file.write(text[start : start + MIB])
            else:
                file.write(bytes(MIB))


def change_source(path: Path, percent: int) -> None:
    """Overwrite so many of a hundred 64 KiB blocks, scattered."""
    chooser = random.Random(2)
    blocks = path.stat().st_size // 65536
    with path.open("r+b") as file:
        for block in chooser.sample(range(blocks), max(1, blocks * percent // 100)):
            file.seek(block * 65536)
            file.write(chooser.randbytes(65536))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scenarios(bench: Bench) -> list[Scenario]:
    """Return what is measured."""

    def start_over() -> None:
        bench.forget()

    def change() -> None:
        change_source(bench.source, 1)

    push = Tool("blockrep push (TLS)", (), bench.push, bench.replica)
    full = [
        push,
        Tool("socat TLS", ("socat",), bench.socat_tls, bench.plain),
        Tool("nbdcopy TLS", ("nbdkit", "nbdcopy"), bench.nbdcopy_tls, bench.plain),
        Tool("socat TCP", ("socat",), bench.socat_tcp, bench.plain),
    ]
    ssh = SshBench(bench)
    over_ssh = [
        Tool("blockrep (asyncssh)", NEEDS, ssh.push_library, bench.replica),
        Tool("blockrep (OpenSSH)", NEEDS, ssh.push_openssh, bench.replica),
        Tool("dd | ssh | dd", NEEDS, ssh.pipe, bench.plain),
    ]
    return [
        Scenario("full push", full, start_over, "socat TLS"),
        Scenario("full push over SSH", over_ssh, start_over, "dd | ssh | dd"),
        Scenario("1 % changed (scan)", [push], change, push.name),
        Scenario("nothing changed (scan)", [push], lambda: None, push.name),
    ]


def measure(bench: Bench, scenario: Scenario, rounds: int) -> dict[str, list[Result]]:
    """Run every tool that is here, in turn, ``rounds`` times; check what arrived."""
    results: dict[str, list[Result]] = {}
    tools = []
    for tool in scenario.tools:
        missing = tool.missing()
        if missing:
            print(f"  {tool.name}: skipped, not installed: {', '.join(missing)}")
        else:
            tools.append(tool)
    size = bench.source.stat().st_size
    for _ in range(rounds):
        for tool in tools:
            scenario.reset()
            warm_pages(bench.folder, size)
            result = tool.run()
            if digest(tool.destination) != digest(bench.source):
                raise SystemExit(f"{tool.name}: what arrived differs from what was sent")
            results.setdefault(tool.name, []).append(result)
    return results


def report(
    scenario: Scenario, results: dict[str, list[Result]], size_bytes: int
) -> dict[str, object]:
    """Print a table; return the figures."""
    print(f"\n{scenario.name}")
    print(f"  {'':22} {'wall s':>8} {'min..max':>13} {'cpu/GiB':>8} {'ratio':>6} {'MiB peak':>12}")
    walls = {name: [one.wall_seconds for one in runs] for name, runs in results.items()}
    reference = statistics.median(walls.get(scenario.reference) or next(iter(walls.values())))
    figures: dict[str, object] = {}
    for name, runs in results.items():
        wall = statistics.median(walls[name])
        cpu = statistics.median(one.cpu_seconds for one in runs) / (size_bytes / 2**30)
        peaks = [max(one.peak_kib[end] for one in runs) for end in ("sender", "receiver")]
        spread = f"{min(walls[name]):.2f}..{max(walls[name]):.2f}"
        memory = "/".join(str(peak // 1024) for peak in peaks)
        print(
            f"  {name:22} {wall:8.2f} {spread:>13} {cpu:8.2f} {wall / reference:6.2f} {memory:>12}"
        )
        if name.startswith("blockrep") and max(peaks) > MEMORY_LIMIT_KIB:
            print(f"  {name}: more than {MEMORY_LIMIT_KIB // 1024} MiB")
        figures[name] = {
            "wall_seconds": walls[name],
            "cpu_seconds": [one.cpu_seconds for one in runs],
            "peak_kib": peaks,
            "ratio": wall / reference,
        }
    return figures


def pin_network() -> str:
    """Enter a network namespace of our own, if we may; return the congestion control in use."""
    if os.geteuid() == 0 and "BLOCKREP_BENCHMARK_NAMESPACE" not in os.environ:
        environment = os.environ | {"BLOCKREP_BENCHMARK_NAMESPACE": "1"}
        argv = ["unshare", "--net", sys.executable, *sys.argv]
        if (
            subprocess.run(
                ["unshare", "--net", "true"], check=False, capture_output=True
            ).returncode
            == 0
        ):
            os.execvpe("unshare", argv, environment)
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    if "BLOCKREP_BENCHMARK_NAMESPACE" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        control.write_text("reno")
    return control.read_text().strip()


def main() -> int:
    """Run the scenarios."""
    parser = argparse.ArgumentParser(description="Measures blockrep beside its peers.")
    parser.add_argument("--smoke", action="store_true", help="64 MiB, one round: does it work?")
    parser.add_argument("--size", default="2G", help="of the volume")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    size_bytes = 64 * MIB if options.smoke else parse_size(options.size)
    rounds = 1 if options.smoke else options.rounds
    control = pin_network()
    print(f"{size_bytes // MIB} MiB, {rounds} rounds, {os.cpu_count()} cores, TCP {control}")
    figures: dict[str, object] = {"size_bytes": size_bytes, "congestion_control": control}
    with tempfile.TemporaryDirectory(prefix="blockrep-bench-", dir=options.folder) as name:
        bench = Bench(Path(name))
        bench.prepare()
        make_source(bench.source, size_bytes)
        for scenario in scenarios(bench):
            if results := measure(bench, scenario, rounds):
                figures[scenario.name] = report(scenario, results, size_bytes)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
