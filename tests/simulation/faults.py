"""What may go wrong while a push runs: one of these is chosen, armed, and ended after it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.disks import LvmDisk
from simulation.hosts import SimulatedHost
from simulation.network import FAULTS as NETWORK_FAULTS

if TYPE_CHECKING:
    from simulation.scenario import Scenario

Arm = Callable[["Scenario", random.Random], None]
_YEAR_SECONDS = 365 * 24 * 3600
_MUCH_BYTES = 32 * 64 * 1024


def disarm(scenario: Scenario) -> None:
    """End what any of them began."""
    for host in (scenario.origin, scenario.replica):
        host.crash_in, host.crash_at = 0, ""
        host.delays_seconds = [0.0, 0.0, 0.001]
        host.slow_in = host.happens_in = 0
        host.disk.repair()
        if isinstance(host.disk, LvmDisk):
            host.disk.end_disturbances()
    scenario.network_fault = ""
    scenario.meanwhile = ""


def network(scenario: Scenario, rng: random.Random) -> None:
    scenario.network_fault = rng.choice(NETWORK_FAULTS)


def origin_crashes(scenario: Scenario, rng: random.Random) -> None:
    _crash(scenario.origin, rng)


def replica_crashes(scenario: Scenario, rng: random.Random) -> None:
    _crash(scenario.replica, rng)


def both_crash(scenario: Scenario, rng: random.Random) -> None:
    _crash(scenario.origin, rng)
    _crash(scenario.replica, rng)


def sync_fails(scenario: Scenario, rng: random.Random) -> None:
    # Simulated LVM fails once either way, as the kernel does.
    scenario.replica.disk.fail(rng.choice(["sync", "sync once"]))


def reading_fails(scenario: Scenario, _rng: random.Random) -> None:
    scenario.origin.disk.fail("read")


def somebody_fills_the_pool(scenario: Scenario, rng: random.Random) -> None:
    scenario.replica.disk.fill(rng.randint(0, 8))


def somebody_fills_the_pool_meanwhile(scenario: Scenario, rng: random.Random) -> None:
    """While more is sent than there is room for then; whoever looks in time does not fill it."""
    replica, origin = scenario.replica, scenario.origin.disk
    if isinstance(replica.disk, LvmDisk):
        origin.grow(max(origin.size_bytes(), _MUCH_BYTES))
        origin.write(0, rng.randbytes(_MUCH_BYTES))
        _meanwhile(replica, rng, lambda: replica.disk.fill(rng.randint(6, 10)))
    else:
        network(scenario, rng)


def slow_disks(scenario: Scenario, rng: random.Random) -> None:
    for host in (scenario.origin, scenario.replica):
        host.delays_seconds = [0.0, rng.choice([0.5, 4.0, 29.0])]


def one_call_is_slow(scenario: Scenario, rng: random.Random) -> None:
    """Slower than any peer would be silent, and all others are quick."""
    host = rng.choice([scenario.origin, scenario.replica])
    host.slow_in, host.slow_seconds = rng.randint(1, 30), rng.choice([40.0, 100.0, 1000.0])


def clock_jumps(scenario: Scenario, rng: random.Random) -> None:
    host = rng.choice([scenario.origin, scenario.replica])
    host.clock_seconds += rng.choice([-2, 3]) * _YEAR_SECONDS


def a_command_fails(scenario: Scenario, rng: random.Random) -> None:
    """Or does not end in time, with its effect or without."""
    _on_lvm(scenario, rng, lambda disk: disk.disturb_command(rng))


def somebody_fills_the_metadata(scenario: Scenario, rng: random.Random) -> None:
    _on_lvm(scenario, rng, lambda disk: disk.fill_metadata(rng.randint(0, 12)))


def somebody_fills_the_metadata_meanwhile(scenario: Scenario, rng: random.Random) -> None:
    """So far that a push which looks in time can end before they are full."""
    host = rng.choice([scenario.origin, scenario.replica])
    disk = host.disk
    if isinstance(disk, LvmDisk):
        _meanwhile(host, rng, lambda: disk.fill_metadata(rng.randint(4, 16)))
    else:
        network(scenario, rng)


def metadata_is_held(scenario: Scenario, rng: random.Random) -> None:
    """By another program."""
    _on_lvm(scenario, rng, lambda disk: disk.hold_metadata())


def a_creation_is_cut_short(scenario: Scenario, rng: random.Random) -> None:
    host = rng.choice([scenario.origin, scenario.replica])
    if isinstance(host.disk, LvmDisk):
        host.crash_at, host.keeps_power = rng.choice(["lvcreate, noted", "lvcreate, made"]), False
    else:
        network(scenario, rng)


def somebody_else_asks(scenario: Scenario, rng: random.Random) -> None:
    scenario.meanwhile = rng.choice(["push", "verify", "list"])


def _crash(host: SimulatedHost, rng: random.Random) -> None:
    host.crash_in = rng.randint(1, rng.choice([40, 400]))
    host.keeps_power = rng.random() < 0.3


def _meanwhile(host: SimulatedHost, rng: random.Random, happens: Callable[[], None]) -> None:
    host.happens_in, host.happens = rng.randint(1, rng.choice([20, 100])), happens


def _on_lvm(scenario: Scenario, rng: random.Random, disturb: Callable[[LvmDisk], None]) -> None:
    disks = [host.disk for host in (scenario.origin, scenario.replica)]
    found = [disk for disk in disks if isinstance(disk, LvmDisk)]
    if found:
        disturb(rng.choice(found))
    else:
        network(scenario, rng)


FAULTS: tuple[Arm, ...] = (
    network,
    origin_crashes,
    replica_crashes,
    both_crash,
    sync_fails,
    reading_fails,
    somebody_fills_the_pool,
    somebody_fills_the_pool_meanwhile,
    somebody_fills_the_metadata,
    somebody_fills_the_metadata_meanwhile,
    slow_disks,
    one_call_is_slow,
    clock_jumps,
    a_command_fails,
    metadata_is_held,
    a_creation_is_cut_short,
    somebody_else_asks,
)
