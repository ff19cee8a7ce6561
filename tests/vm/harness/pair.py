"""Two machines and the cable between them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .errors import HarnessError
from .image import Image
from .link import Direction, Link
from .machine import ORIGIN, REPLICA, Machine
from .volumes import MIB, wipe

_DISK_BYTES = 4096 * MIB


@dataclass(frozen=True)
class Pair:
    """``origin`` and ``replica``, which know each other by these names, and their link."""

    origin: Machine
    replica: Machine
    link: Link

    @staticmethod
    def create(image: Image, folder: Path, *, volatile: bool = False) -> Pair:
        """Make both and boot them at once.

        Each has one disk of 4 GiB, which with ``volatile`` loses at a power cut what was not
        flushed.
        """
        link = Link()
        origin, replica = (
            Machine(
                host,
                image,
                folder / host.name,
                disk_sizes_bytes=[_DISK_BYTES],
                volatile=volatile,
                link_end=link.plug(direction),
            )
            for host, direction in ((ORIGIN, Direction.FORTH), (REPLICA, Direction.BACK))
        )
        pair = Pair(origin, replica, link)
        try:
            pair.reset()
        except BaseException:
            pair.close()
            raise
        return pair

    @property
    def machines(self) -> tuple[Machine, Machine]:
        """Both, the origin first."""
        return self.origin, self.replica

    def reset(self) -> None:
        """Mend the link, boot what is off, end all commands, empty all disks."""
        self.link.restore()
        self.link.reset_counters()
        off = [machine for machine in self.machines if not machine.running]
        for machine in off:
            machine.start()
        for machine in off:
            machine.wait_ready()
        with ThreadPoolExecutor() as threads:
            list(threads.map(_clean, self.machines))

    def close(self) -> None:
        """Kill both and end the link."""
        for machine in self.machines:
            machine.close()
        self.link.close()

    def enable_ssh(self, key_options: str = "") -> None:
        """Let root of the origin log in at the replica with a fresh key.

        ``key_options`` is what the line of authorized_keys starts with, such as ``restrict``.
        """
        script = (
            "mkdir -p -m 700 .ssh && rm -f .ssh/id_ed25519 &&"
            " ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519 && cat .ssh/id_ed25519.pub"
        )
        public_key = self.origin.run(script, timeout_seconds=60).stdout
        self.replica.run("mkdir -p -m 700 .ssh", timeout_seconds=30)
        line = f"{key_options} {public_key}".lstrip()
        self.replica.write_file("/root/.ssh/authorized_keys", line, mode=0o600)
        start = "[ -e /run/sshd.pid ] || /usr/sbin/sshd; cat /etc/ssh/ssh_host_ed25519_key.pub"
        host_key = self.replica.run(start, timeout_seconds=60).stdout
        self.origin.write_file("/root/.ssh/known_hosts", f"replica {host_key}")


def _clean(machine: Machine) -> None:
    """End what a test left behind; a machine that does not let go is booted with new disks."""
    machine.resume()
    try:
        machine.end_commands()
        wipe(machine)
    except (HarnessError, TimeoutError):
        machine.kill()
        machine.empty_disks()
        machine.boot()
