"""Makes what the machines boot: a kernel, an initial RAM disk and a compressed Debian root.

Everything comes from Debian's and Python's package sources as this host's apt and pip know them. It
is made once, as root, in a few minutes, and kept below ``.cache/vm`` of the repository (or
``BLOCKREP_VM_CACHE``) in a folder named by a hash of all that goes in; starting machines from it
needs no rights. blockrep itself is not part of it: each boot brings the current sources along.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cpio import PayloadFile, archive
from .errors import BuildError, UnavailableError

REPOSITORY = Path(__file__).resolve().parents[3]
GUEST_FILES = Path(__file__).parent / "guest"

_SUITE = "bookworm"
_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_ROOT_PACKAGES = (
    "btrfs-progs",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "lvm2",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "thin-provisioning-tools",
    "udev",
    "xfsprogs",
)
#: What the root file system needs before it can load modules itself.
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "squashfs", "overlay")
#: Python of the suite, for which packages are chosen.
GUEST_PYTHON = "3.11"
_GUEST_PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
GUEST_PACKAGES_FOLDER = "opt/blockrep/packages"
_NOT_IN_THE_ROOT = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man")
_EMPTIED_IN_THE_ROOT = ("var/cache/apt", "var/lib/apt/lists", "var/log", "tmp")

#: Programs, and the Debian packages that have them.
_RUN_TOOLS = {"qemu-system-x86_64": "qemu-system-x86"}
_BUILD_TOOLS = {
    "apt-get": "apt",
    "debootstrap": "debootstrap",
    "dpkg": "dpkg",
    "mksquashfs": "squashfs-tools",
    "busybox": "busybox-static",
    "chroot": "coreutils",
}
_STEP_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Image:
    """Files to boot from."""

    kernel: Path
    initramfs: Path
    root: Path


def cached_image() -> Image:
    """Return the image, made if need be. Raises UnavailableError or BuildError."""
    if platform.machine() != "x86_64":
        raise UnavailableError("the virtual machines are made for x86_64 hosts only")
    _require(_RUN_TOOLS)
    cache = Path(os.environ.get("BLOCKREP_VM_CACHE") or REPOSITORY / ".cache" / "vm")
    folder = cache / _fingerprint()
    image = Image(folder / "vmlinuz", folder / "initramfs.gz", folder / "root.squashfs")
    if folder.is_dir():
        return image
    _require(_BUILD_TOOLS)
    if os.geteuid() != 0:
        raise UnavailableError(f"building {folder} needs root, once")
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        if not folder.is_dir():
            _build(cache, folder)
    return image


def _require(tools: dict[str, str]) -> None:
    missing = sorted({package for tool, package in tools.items() if shutil.which(tool) is None})
    if missing:
        raise UnavailableError(f"missing Debian packages: apt-get install {' '.join(missing)}")


def _fingerprint() -> str:
    """Return a name for all that goes into the image."""
    inputs = (Path(__file__), GUEST_FILES / "initramfs-init.sh", _requirements())
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _requirements() -> Path:
    """Return the lock file of what blockrep needs at run time."""
    return REPOSITORY / "requirements" / "run.txt"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between test runs, so that only one builds."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    """Run a build step, return its output. Raises BuildError."""
    # Debian's C.UTF-8 exists on both sides of chroot; the sbin folders are not in everybody's PATH.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_STEP_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{argv[0]}: not done after {_STEP_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        lines = "\n".join(done.stdout.splitlines()[-30:])
        raise BuildError(f"{' '.join(map(str, argv))}: status {done.returncode}\n{lines}")
    return done.stdout


def _build(cache: Path, folder: Path) -> None:
    for interrupted in cache.glob("making-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as name:
        work = Path(name)
        work.chmod(0o755)
        result = work / "result"
        result.mkdir()
        root = work / "root"
        packages = "--include=" + ",".join(_ROOT_PACKAGES)
        _run("debootstrap", "--variant=minbase", packages, _SUITE, root, _debian_mirror())
        kernel = _unpack_kernel(work)
        shutil.copy(next((kernel / "boot").glob("vmlinuz-*")), result / "vmlinuz")
        (modules,) = (kernel / "lib/modules").iterdir()
        guest_modules = root / "usr/lib/modules" / modules.name
        shutil.copytree(modules, guest_modules, symlinks=True)
        _run("chroot", root, "depmod", modules.name)
        _install_python_packages(root)
        (result / "initramfs.gz").write_bytes(_initramfs(guest_modules))
        _slim(root)
        compression = ["-comp", "zstd", "-Xcompression-level", "6"]
        _run("mksquashfs", root, result / "root.squashfs", "-no-progress", *compression)
        result.rename(folder)


def _debian_mirror() -> str:
    """Return the address from which this host's apt gets the suite."""
    targets = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)")
    for line in targets.splitlines():
        release, component, address = line.split(" ", 2)
        if (release, component) == (_SUITE, "main"):
            return address
    raise UnavailableError(f"apt is not configured for {_SUITE} main: add it to apt's sources")


def _unpack_kernel(work: Path) -> Path:
    """Download the newest kernel that apt knows; return the folder that it was unpacked to."""
    depends = _run("apt-cache", "depends", "--important", _KERNEL_PACKAGE)
    names = [line.split()[-1] for line in depends.splitlines() if "linux-image-" in line]
    if len(names) < 2:
        raise BuildError(f"apt knows no {_KERNEL_PACKAGE}: run apt-get update\n{depends}")
    _run("apt-get", "download", names[1], cwd=work)
    (package,) = work.glob("*.deb")
    _run("dpkg", "-x", package, work / "kernel")
    return work / "kernel"


def _install_python_packages(root: Path) -> None:
    """Install what blockrep needs, in the locked versions, for the guest's Python."""
    target = root / GUEST_PACKAGES_FOLDER
    options = ["--quiet", "--no-deps", "--require-hashes", f"--requirement={_requirements()}"]
    options += ["--only-binary=:all:", "--implementation=cp", f"--python-version={GUEST_PYTHON}"]
    options += [f"--platform={name}" for name in _GUEST_PLATFORMS]
    _run(sys.executable, "-m", "pip", "install", *options, f"--target={target}")
    for bytecode in target.rglob("__pycache__"):
        shutil.rmtree(bytecode)  # of another Python, perhaps
    _run("chroot", root, "python3", "-m", "compileall", "-q", f"/{GUEST_PACKAGES_FOLDER}")


def _initramfs(modules: Path) -> bytes:
    """Return the RAM disk that mounts the root: busybox, a script and the modules for it."""
    busybox = shutil.which("busybox") or "busybox"
    files = {
        "init": PayloadFile((GUEST_FILES / "initramfs-init.sh").read_bytes(), 0o755),
        "bin/busybox": PayloadFile(Path(busybox).read_bytes(), 0o755),
    }
    order: list[str] = []
    for path in _with_dependencies(modules, _BOOT_MODULES):
        files[f"modules/{path.name}"] = PayloadFile(path.read_bytes())
        order.append(path.name)
    files["modules/order"] = PayloadFile("".join(f"{name}\n" for name in order).encode())
    return archive(files, compression_level=6)


def _with_dependencies(modules: Path, wanted: Sequence[str]) -> list[Path]:
    """Return the modules' files in an order in which they can be loaded."""
    needs: dict[Path, list[Path]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, dependencies = line.partition(":")
        needs[modules / name] = [modules / dependency for dependency in dependencies.split()]
    by_name = {path.name.split(".")[0].replace("-", "_"): path for path in needs}
    order: dict[Path, None] = {}
    for name in wanted:
        # modules.dep lists the deepest dependency last
        for path in (*reversed(needs[by_name[name]]), by_name[name]):
            order[path] = None
    return list(order)


def _slim(root: Path) -> None:
    for name in _NOT_IN_THE_ROOT:
        shutil.rmtree(root / name)
    for name in _EMPTIED_IN_THE_ROOT:
        for path in (root / name).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
