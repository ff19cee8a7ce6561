"""Volume groups, thin pools and thin volumes for a test, made fast and removed faster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .machine import Disk, Machine

MIB = 1024 * 1024
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class ThinPool:
    """A thin pool in a volume group of its own on one disk of a machine."""

    machine: Machine
    group: str
    name: str
    disk: Disk

    @property
    def device(self) -> str:
        """Device-mapper name of the pool's own device, for ``dmsetup``."""
        return f"{_mangled(self.group)}-{_mangled(self.name)}-tpool"

    def status(self) -> str:
        """Return the line of ``dmsetup status``."""
        command = ["dmsetup", "status", self.device]
        return self.machine.run(command, timeout_seconds=_TIMEOUT_SECONDS).stdout

    def transactions(self) -> tuple[int, int]:
        """Return how many changes LVM has noted, and how many the pool was told of."""
        command = f"lvs --noheadings -o transaction_id {self.group}/{self.name}"
        noted = self.machine.run(command, timeout_seconds=_TIMEOUT_SECONDS).stdout
        return int(noted), int(self.status().split()[3])

    def make_what_is_noted(self) -> None:
        """Have the pool make the snapshot that LVM has noted, and not the transaction.

        What a power cut between LVM's two messages leaves; then deactivate the group.
        """
        noted = self.transactions()[0] - 1
        volumes = self.volumes()
        (new,) = [one for one in volumes.values() if one["transaction_id"] == str(noted)]
        message = f"create_snap {new['thin_id']} {volumes[new['origin']]['thin_id']}"
        script = f"dmsetup message {self.device} 0 '{message}' && vgchange -qq -an {self.group}"
        self.machine.run(script, timeout_seconds=_TIMEOUT_SECONDS)

    def volumes(self) -> dict[str, dict[str, str]]:
        """Return what lvs reports about all volumes of the group, hidden ones too, by name."""
        fields = (
            "lv_name,lv_uuid,lv_size,thin_id,origin,lv_permissions,lv_active,lv_merging,lv_tags,"
            "transaction_id"
        )
        command = f"lvs -a --reportformat json --units b --nosuffix -o {fields} {self.group}"
        report = self.machine.run(command, timeout_seconds=_TIMEOUT_SECONDS).stdout
        (section,) = json.loads(report)["report"]
        return {volume["lv_name"]: volume for volume in section["lv"]}

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Return the SHA-256 of each volume's whole content as hexadecimal digits.

        Volumes that are not active are activated for that.
        """
        if not names:
            return {}
        script = (
            f"volumes='{' '.join(f'{self.group}/{name}' for name in names)}';"
            " asleep=$(lvs --noheadings -o full_name -S 'lv_active=\"\"' $volumes) || exit 1;"
            ' set -e; [ -z "$asleep" ] || lvchange -ay -K $asleep;'
            " for volume in $volumes; do sha256sum <$(realpath /dev/$volume); done;"
            ' [ -z "$asleep" ] || lvchange -an $asleep'
        )
        done = self.machine.run(script, timeout_seconds=_TIMEOUT_SECONDS)
        lines = done.stdout.splitlines()
        return {name: line.split()[0] for name, line in zip(names, lines, strict=True)}

    def create_volume(self, name: str, size_bytes: int) -> ThinVolume:
        """Make a thin volume, active and writable, nothing of it allocated."""
        command = ["lvcreate", "--wipesignatures", "n", "--virtualsize", f"{size_bytes}b"]
        command += ["--name", name, "--thinpool", f"{self.group}/{self.name}"]
        self.machine.run(command, timeout_seconds=_TIMEOUT_SECONDS)
        return self.volume(name)

    def volume(self, name: str) -> ThinVolume:
        """Return a volume that is there, or that something under test will make."""
        return ThinVolume(self, name)


@dataclass(frozen=True)
class ThinVolume:
    """A thin volume by its name."""

    pool: ThinPool
    name: str

    @property
    def full_name(self) -> str:
        """``volume group/volume``, as every command takes it."""
        return f"{self.pool.group}/{self.name}"

    @property
    def path(self) -> str:
        """Its device."""
        return f"/dev/{self.full_name}"

    def exists(self) -> bool:
        """Tell whether LVM knows it."""
        return self.name in self.pool.volumes()

    def write(self, offset_bytes: int, data: bytes) -> None:
        """Write and flush."""
        command = ["dd", f"of={self.path}", "bs=64k", f"seek={offset_bytes}", "oflag=seek_bytes"]
        command += ["conv=notrunc,fdatasync"]
        self.pool.machine.run(command, stdin=data, timeout_seconds=_TIMEOUT_SECONDS)

    def write_random(self, offset_bytes: int, size_bytes: int) -> None:
        """Write fresh random bytes, made in the guest, and flush."""
        command = ["dd", "if=/dev/urandom", f"of={self.path}", "bs=64k", "conv=notrunc,fdatasync"]
        command += [f"count={size_bytes}", "iflag=count_bytes,fullblock"]
        command += [f"seek={offset_bytes}", "oflag=seek_bytes"]
        self.pool.machine.run(command, timeout_seconds=_TIMEOUT_SECONDS)

    def discard(self, offset_bytes: int, size_bytes: int) -> None:
        """Give a range back to the pool, and flush.

        dm-thin commits what it takes out of a volume within a second, or with a flush.
        """
        script = f"blkdiscard -o {offset_bytes} -l {size_bytes} {self.path} && sync {self.path}"
        self.pool.machine.run(script, timeout_seconds=_TIMEOUT_SECONDS)

    def digest(self) -> str:
        """Return the SHA-256 of its whole content as hexadecimal digits.

        A volume that is not active is activated for that.
        """
        return self.pool.digests([self.name])[self.name]


def create_pool(
    machine: Machine,
    group: str,
    disk: Disk,
    *,
    size_bytes: int = 512 * MIB,
    chunk_bytes: int = 64 * 1024,
    metadata_bytes: int = 4 * MIB,
    zero: bool = True,
    error_when_full: bool = False,
    discards: str = "passdown",
    name: str = "pool",
) -> ThinPool:
    """Make a volume group on the disk with a thin pool in it.

    ``discards`` is LVM's: passdown, nopassdown or ignore.
    """
    script = (
        f"vgcreate --quiet {group} {disk.device} &&"
        f" lvcreate --quiet --thin --size {size_bytes}b"
        f" --chunksize {chunk_bytes}b --poolmetadatasize {metadata_bytes}b"
        f" --zero {'y' if zero else 'n'} --errorwhenfull {'y' if error_when_full else 'n'}"
        f" --discards {discards} {group}/{name}"
    )
    machine.run(script, timeout_seconds=_TIMEOUT_SECONDS)
    return ThinPool(machine, group, name, disk)


def wipe(machine: Machine) -> None:
    """Forget everything that LVM knows on a machine, whoever uses it, and empty its disks.

    Device-mapper's devices go first, by force, so that nothing needs to be asked of volume groups
    that a test may have damaged.
    """
    disks = " ".join(disk.device for disk in machine.disks)
    script = (
        "umount --quiet --all --types ext4,xfs,btrfs --lazy;"
        " for round in 1 2 3; do"
        "   [ \"$(dmsetup ls)\" = 'No devices found' ] && break;"
        "   dmsetup remove_all --force; udevadm settle;"
        " done;"
        " rm -rf /run/lvm/pvs_online /run/lvm/vgs_online /etc/lvm/archive/* /etc/lvm/backup/*;"
        f" for disk in {disks}; do blkdiscard --force $disk || exit 1; done; udevadm settle;"
        " [ \"$(dmsetup ls)\" = 'No devices found' ]"
    )
    machine.run(script, timeout_seconds=_TIMEOUT_SECONDS)


def _mangled(name: str) -> str:
    """Return a name as device-mapper spells it."""
    return name.replace("-", "--")
