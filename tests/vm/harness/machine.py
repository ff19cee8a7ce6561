"""A virtual machine with real LVM, and how tests use it.

    machine = Machine("origin", image, folder, disk_sizes_bytes=[4 << 30], link_end=link.plug(...))
    machine.boot()
    machine.run(["lvs"], timeout_seconds=10).stdout
    push = machine.spawn("blockrep push volg/thin_volume replica:vgreplica/thinv_replica")
    push.wait_for_output("sending", timeout_seconds=30)
    machine.kill()                      # as if its process died: what the guest wrote stays
    machine.boot()                      # the same disks, everything else is as new

Commands run as root in the guest, each in a session of its own; any number may run at once, from
any thread. A text instead of an argument list is given to a shell. ``blockrep``,
``blockrep-server`` and ``import blockrep`` work in the guest and are the sources of the working
tree as they were when the machine booted.

The root file system is in memory: nothing but the disks survives a boot. The console of every boot
is appended to ``console.log`` in the machine's folder, and its end is part of MachineStoppedError.

``kill()`` is not a power cut: the disks are files of the host, whose page cache keeps what the
guest wrote without flushing. A machine with volatile disks has power cuts::

    machine.cut_power_after(writes=17)  # of its first disk
    ...
    machine.cut_power(random.Random(seed))  # at the latest now; loses what was not flushed
    machine.boot()

Pauses are QEMU's own (SIGSTOP): ``pause()`` and ``resume()`` make a
peer that is silent without being gone.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.util
import py_compile
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .channel import Channel, Process, Result
from .cpio import PayloadFile, archive
from .errors import HarnessError, MachineStoppedError
from .image import GUEST_FILES, GUEST_PACKAGES_FOLDER, GUEST_PYTHON, REPOSITORY, Image
from .nbd import VolatileDisk

#: Emulated, on a busy host, a boot takes a few times the usual four seconds.
BOOT_TIMEOUT_SECONDS = 90.0
_CONSOLE_TAIL_LINES = 25
_SOURCES_FOLDER = "opt/blockrep/src"
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"
    # QEMU translates code for the address at which it runs: with programs at the same address
    # every time, it translates them once. A process starts five times as fast.
    " nokaslr norandmaps"
)
#: Few features: vector instructions and five levels of page tables are slow where emulated.
_PROCESSOR = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+aes,+rdrand"


@dataclass(frozen=True)
class Disk:
    """A disk and the device that the guest sees: a raw sparse file, or one with a cache."""

    path: Path
    device: str
    size_bytes: int
    volatile: VolatileDisk | None = None

    def empty(self) -> None:
        """Make it as new."""
        if self.volatile is not None:
            self.volatile.empty()
            return
        with self.path.open("wb") as file:
            file.truncate(self.size_bytes)


@dataclass(frozen=True)
class Host:
    """A name for /etc/hosts of every guest."""

    name: str
    address: str
    hardware_address: str


ORIGIN = Host("origin", "10.77.0.1", "52:54:00:77:00:01")
REPLICA = Host("replica", "10.77.0.2", "52:54:00:77:00:02")


class Machine:
    """One virtual machine; it runs between boot() and kill() or shut_down()."""

    def __init__(
        self,
        host: Host,
        image: Image,
        folder: Path,
        *,
        disk_sizes_bytes: Sequence[int] = (),
        volatile: bool = False,
        link_end: int | None = None,
        memory_mib: int = 512,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.console_log = folder / "console.log"
        self.disks = tuple(
            Disk(
                folder / f"disk{number}.img",
                f"/dev/vd{chr(ord('b') + number)}",
                size_bytes,
                VolatileDisk(folder / f"disk{number}", size_bytes) if volatile else None,
            )
            for number, size_bytes in enumerate(disk_sizes_bytes)
        )
        self._image = image
        self._folder = folder
        self._link_end = link_end
        self._memory_mib = memory_mib
        self._qemu: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self.empty_disks()

    # -- life

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._qemu is not None and self._qemu.poll() is None

    def boot(self) -> None:
        """Start and wait until commands can run. Raises MachineStoppedError."""
        self.start()
        self.wait_ready()

    def start(self) -> None:
        """Start without waiting, so that several machines can boot at once."""
        if self.running:
            raise HarnessError(f"{self.host.name} is running already")
        self._forget()
        payload = self._folder / "initramfs"
        payload.write_bytes(self._image.initramfs.read_bytes() + archive(self._payload()))
        # The path of a Unix socket has room for 107 bytes: not below the machine's folder.
        with tempfile.TemporaryDirectory(prefix="vm-") as name:
            address = f"{name}/agent"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(1)
                listener.settimeout(BOOT_TIMEOUT_SECONDS)
                with (self._folder / "qemu.log").open("ab") as log:
                    self._qemu = subprocess.Popen(
                        self._command(payload, address),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[] if self._link_end is None else [self._link_end],
                    )
                connection = self._accept(listener)
        connection.settimeout(None)
        self._channel = Channel(connection, self.host.name)

    def _accept(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(0.2)
        while self.running:
            with contextlib.suppress(TimeoutError):
                return listener.accept()[0]
        raise MachineStoppedError(
            f"qemu did not start\n{(self._folder / 'qemu.log').read_text(errors='replace')}"
        )

    def wait_ready(self) -> None:
        """Wait until commands can run. Raises MachineStoppedError."""
        if self._channel is None or not self._channel.wait_ready(BOOT_TIMEOUT_SECONDS):
            self.kill()
            raise MachineStoppedError(f"{self.host.name} did not boot\n{self.console_tail()}")

    def kill(self) -> None:
        """Kill its process. Commands that run end with MachineStoppedError."""
        if self._qemu is not None:
            self._qemu.kill()
        self._forget()

    def close(self) -> None:
        """Kill it, for good."""
        self.kill()
        for disk in self.disks:
            if disk.volatile is not None:
                disk.volatile.close()

    def cut_power_after(self, writes: int) -> None:
        """Have its power cut at so many writes to its first disk from now."""
        assert self._qemu is not None
        self._volatile_disks()[0].cut_power_after(writes, self._qemu.kill)

    def cut_power_after_notes(self, notes: int) -> None:
        """Have its power cut right after LVM has noted a change; see VolatileDisk."""
        assert self._qemu is not None
        self._volatile_disks()[0].cut_power_after_notes(notes, self._qemu.kill)

    def cut_power(self, rng: random.Random) -> int:
        """Cut its power, if that did not happen; return how many sectors its disks lost."""
        self.kill()
        return sum(disk.lose_unflushed(rng) for disk in self._volatile_disks())

    def _volatile_disks(self) -> list[VolatileDisk]:
        return [disk.volatile for disk in self.disks if disk.volatile is not None]

    def shut_down(self, timeout_seconds: float = 30.0) -> None:
        """Flush the disks and switch off."""
        self.run("sync", timeout_seconds=timeout_seconds)
        self._connected().close()
        if self._qemu is not None:
            self._qemu.wait(timeout_seconds)
        self._forget()

    def reboot(self) -> None:
        """Kill it and boot it again with the same disks."""
        self.kill()
        self.boot()

    def empty_disks(self) -> None:
        """Make all disks as new; only while it is off."""
        assert not self.running
        for disk in self.disks:
            disk.empty()

    def pause(self) -> None:
        """Stop the machine's clock: silent, but not gone."""
        assert self._qemu is not None
        self._qemu.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after pause()."""
        assert self._qemu is not None
        self._qemu.send_signal(signal.SIGCONT)

    def console_tail(self) -> str:
        """Return the last lines of the console."""
        text = self.console_log.read_text(errors="replace")
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc", "", text).splitlines()
        return "\n".join(lines[-_CONSOLE_TAIL_LINES:])

    def _forget(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._qemu is not None:
            self._qemu.wait()
        self._channel = self._qemu = None

    # -- commands

    def spawn(
        self,
        command: Sequence[str] | str,
        *,
        cwd: str = "/root",
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = b"",
    ) -> Process:
        """Start a command: an argument list, or a text for a shell.

        Standard input is ``stdin`` and then ends, or stays open for Process.write if that is None.
        Raises MachineStoppedError.
        """
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        process = self._connected().request(
            argv, {"do": "start", "argv": argv, "cwd": cwd, "env": dict(environment or {})}
        )
        if stdin is not None:
            process.write(stdin, end=True)
        return process

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout_seconds: float,
        check: bool = True,
        cwd: str = "/root",
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Result:
        """Run a command to its end.

        Raises CommandFailedError for a status other than 0 (if ``check``), TimeoutError (after the
        command was killed) and MachineStoppedError.
        """
        process = self.spawn(command, cwd=cwd, environment=environment, stdin=stdin)
        try:
            result = process.wait(timeout_seconds)
        except TimeoutError:
            process.kill()
            raise
        return result.check() if check else result

    def write_file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Write a file in the guest, making folders. Raises HarnessError."""
        data = content.encode() if isinstance(content, str) else content
        encoded = base64.b64encode(data).decode()
        request = {"do": "write", "path": path, "data": encoded, "mode": mode}
        self._connected().request(["write", path], request).wait(timeout_seconds=60)

    def read_file(self, path: str) -> bytes:
        """Read a file of the guest. Raises HarnessError."""
        process = self._connected().request(["read", path], {"do": "read", "path": path})
        process.wait(timeout_seconds=60)
        return process.content

    def end_commands(self) -> None:
        """Kill all commands that still run. Raises TimeoutError for what cannot be killed."""
        running = self._connected().running()
        for process in running:
            process.kill()
        for process in running:
            with contextlib.suppress(HarnessError):
                process.wait(timeout_seconds=10)

    def _connected(self) -> Channel:
        if self._channel is None:
            raise MachineStoppedError(f"{self.host.name} is not running")
        return self._channel

    # -- what it is made of

    def _command(self, initramfs: Path, agent_address: str) -> list[str]:
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", _PROCESSOR]
        # One processor: emulated, a second one makes a boot half as long again.
        command += ["-M", "q35", "-smp", "1", "-m", str(self._memory_mib), "-nographic"]
        command += ["-nodefaults", "-no-reboot", "-no-user-config"]
        command += ["-kernel", str(self._image.kernel), "-initrd", str(initramfs)]
        command += ["-append", _KERNEL_ARGUMENTS]
        command += ["-chardev", f"file,id=console,path={self.console_log},append=on"]
        command += ["-serial", "chardev:console"]
        command += ["-chardev", f"socket,id=agent,path={agent_address}"]
        command += ["-device", "virtio-serial-pci"]
        command += ["-device", "virtserialport,chardev=agent,name=agent"]
        command += _drive_arguments("root", _file_arguments(self._image.root, read_only=True))
        for number, disk in enumerate(self.disks):
            node = _file_arguments(disk.path, read_only=False)
            if disk.volatile is not None:
                node = f"driver=nbd,server.type=unix,server.path={disk.volatile.address}"
            command += _drive_arguments(f"disk{number}", node)
        if self._link_end is not None:
            command += ["-netdev", f"dgram,id=net,local.type=fd,local.str={self._link_end}"]
            # No romfile: nothing boots from the network, and its firmware takes a second.
            card = f"virtio-net-pci,netdev=net,mac={self.host.hardware_address},romfile="
            command += ["-device", card]
        return command

    def _payload(self) -> dict[str, PayloadFile]:
        """Return what this boot brings along: the guest's own programs and blockrep's sources."""
        settings = f"GUEST_NAME={self.host.name}\nGUEST_ADDRESS={self.host.address}/24\n"
        hosts = "".join(f"{host.address} {host.name}\n" for host in (ORIGIN, REPLICA))
        texts = {
            "etc/guest.conf": settings,
            "etc/hosts": f"127.0.0.1 localhost\n{hosts}",
            "usr/lib/guest/agent.py": (GUEST_FILES / "agent.py").read_text(),
            "usr/local/lib/python3.11/dist-packages/blockrep.pth": (
                f"/{_SOURCES_FOLDER}\n/{GUEST_PACKAGES_FOLDER}\n"
            ),
        }
        files = {name: PayloadFile(text.encode()) for name, text in texts.items()}
        init = (GUEST_FILES / "guest-init.sh").read_bytes()
        files["usr/sbin/guest-init"] = PayloadFile(init, 0o755)
        for name, program in _programs().items():
            files[f"usr/local/bin/{name}"] = PayloadFile(program.encode(), 0o755)
        sources = REPOSITORY / "src"
        for path in sources.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                content = PayloadFile(path.read_bytes())
                files[f"{_SOURCES_FOLDER}/{path.relative_to(sources)}"] = content
        for name, bytecode in _bytecode(sources).items():
            files[f"{_SOURCES_FOLDER}/{name}"] = PayloadFile(bytecode)
        return {f"payload/{name}": file for name, file in files.items()}


@functools.cache
def _bytecode(sources: Path) -> dict[str, bytes]:
    """Compile for the guest's Python, if this one is the same: there, it takes seconds a boot."""
    found: dict[str, bytes] = {}
    if "{}.{}".format(*sys.version_info) != GUEST_PYTHON:
        return found
    with tempfile.TemporaryDirectory() as folder:
        for path in sources.rglob("*.py"):
            compiled = Path(folder) / "compiled"
            py_compile.compile(
                str(path),
                str(compiled),
                dfile=f"/{_SOURCES_FOLDER}/{path.relative_to(sources)}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )
            name = importlib.util.cache_from_source(str(path.relative_to(sources)))
            found[name] = compiled.read_bytes()
    return found


def _programs() -> dict[str, str]:
    """Return the project's commands as an installation would make them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    programs = {}
    for name, entry_point in project["scripts"].items():
        module, function = entry_point.split(":")
        programs[name] = (
            f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
    return programs


def _file_arguments(path: Path, *, read_only: bool) -> str:
    # no-flush: a killed QEMU loses nothing of the host's page cache, so waiting for the host's disk
    # would only cost time.
    return (
        f"driver=raw,cache.no-flush=on,read-only={'on' if read_only else 'off'}"
        f",file.driver=file,file.filename={path},file.discard=unmap"
    )


def _drive_arguments(name: str, node: str) -> list[str]:
    # Every disk is a -device: mixed styles would swap the devices' names.
    drive = f"{node},node-name={name},discard=unmap"
    device = f"virtio-blk-pci,drive={name},serial={name},werror=report,rerror=report"
    return ["-blockdev", drive, "-device", device]
