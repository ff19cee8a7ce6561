"""The machine that measures: its network is pinned, its hazards are named, its tools are listed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blockrep import __version__

_NAMESPACE = "BLOCKREP_BENCHMARK_NAMESPACE"
_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_VERSIONS = {
    "socat": ["socat", "-V"],
    "nbdkit": ["nbdkit", "--version"],
    "nbdcopy": ["nbdcopy", "--version"],
    "rsync": ["rsync", "--version"],
    "ssh": ["ssh", "-V"],
    "zstd": ["zstd", "--version"],
    "thin_delta": ["thin_delta", "-V"],
}
_XFS_SPARE_BYTES = 512 * 1024 * 1024


def pin_network() -> str:
    """Enter namespaces of our own, if we may; return the congestion control in use.

    BBR, the default of some machines, paces what goes over loopback: 1.4 GB/s where others reach
    7.6. What is mounted in the namespace is gone with it.
    """
    if os.geteuid() == 0 and _NAMESPACE not in os.environ:
        unshare = ["unshare", "--net", "--mount"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode == 0:
            argv = [*unshare, sys.executable, *sys.argv]
            os.execvpe("unshare", argv, os.environ | {_NAMESPACE: "1"})
    if _NAMESPACE in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        _CONTROL.write_text("reno")
    return _CONTROL.read_text().strip()


@contextmanager
def congestion_control(name: str) -> Iterator[bool]:
    """Have TCP use another congestion control; yields whether that was possible."""
    if name in {"", _CONTROL.read_text().strip()}:
        yield True
        return
    if _NAMESPACE not in os.environ or name not in _AVAILABLE.read_text().split():
        yield False
        return
    before = _CONTROL.read_text()
    _CONTROL.write_text(name)
    try:
        yield True
    finally:
        _CONTROL.write_text(before)


@contextmanager
def mounted_xfs(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """Yield a folder on an XFS in a file in ``folder``; None: we are not root, or have no XFS."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        yield None
        return
    image, mounted = folder / "xfs.img", folder / "xfs"
    with image.open("wb") as file:
        file.truncate(size_bytes + _XFS_SPARE_BYTES)
    mounted.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    argv = ["mount", "-o", "loop,discard", str(image), str(mounted)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    try:
        if done.returncode:
            print(f"  no loop mount: {done.stderr.strip()}")
        yield None if done.returncode else mounted
    finally:
        if not done.returncode:
            subprocess.run(["umount", str(mounted)], check=True)
        image.unlink()
        mounted.rmdir()


def describe() -> dict[str, object]:
    """Return what the figures depend on beside blockrep."""
    with Path("/proc/cpuinfo").open() as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "blockrep": __version__,
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tools": {name: _version(argv) for name, argv in _VERSIONS.items()},
    }


def _version(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    # socat says who wrote it first.
    return next((line for line in lines if any(one.isdigit() for one in line)), "")[:80]


def is_in_memory(folder: Path) -> bool:
    """Tell whether a folder is on tmpfs."""
    argv = ["stat", "--file-system", "--format=%T", str(folder)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return done.stdout.strip() == "tmpfs"


def default_folder() -> Path:
    """Return a folder in memory."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
