"""Real LVM passes the storage contract that images, memory and the simulated LVM pass."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest

from vm.harness.machine import Machine
from vm.harness.pair import Pair

pytestmark = pytest.mark.vm

TESTS = Path(__file__).resolve().parent.parent
FOLDER = "/root/contract"
#: A push takes half a minute where processors are emulated, so one kind of pool gets what nothing
#: else tries on real LVM, the others (thorough) what is hard for them. The whole contract takes
#: some two hours: BLOCKREP_VM_CONTRACT=whole.
CHOSEN = {
    "one-pool": "crash_anywhere or not_ours_stays or rolled_back or drift_during",
    "coarse": "first_failure",
    "unzeroed": "(any_sequence and 0) or (goes_on_at_its_cursor and full)",
}
WHOLE = os.environ.get("BLOCKREP_VM_CONTRACT") == "whole"
_SECONDS = 7200.0 if WHOLE else 1500.0


def closure(name: str) -> Iterator[metadata.Distribution]:
    """Yield a distribution and all that it needs here."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [name]
    while wanted:
        one = wanted.pop()
        if one in found:
            continue
        try:
            found[one] = metadata.distribution(one)
        except metadata.PackageNotFoundError:
            continue  # for other systems, or an extra
        for requirement in found[one].requires or []:
            match = re.match(r"[\w.-]+", requirement)
            if match is not None and "extra ==" not in requirement:
                wanted.append(match[0])
    yield from found.values()


def archive_of_tests() -> bytes:
    """Pack the contract, and pytest as it is installed here: it is pure Python."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for distribution in closure("pytest"):
            for file in distribution.files or []:
                path = Path(str(distribution.locate_file(file)))
                if ".." not in PurePosixPath(file).parts and path.suffix == ".py":
                    archive.add(path, f"site/{file}")
        for path in (TESTS / "storage").glob("*.py"):
            archive.add(path, f"tests/storage/{path.name}")
    return buffer.getvalue()


@pytest.fixture
def machine(pair: Pair) -> Machine:
    machine = pair.replica
    machine.write_file(f"{FOLDER}.tar", archive_of_tests())
    unpack = f"rm -rf {FOLDER}; mkdir {FOLDER} && tar -xf {FOLDER}.tar -C {FOLDER}"
    machine.run(unpack, timeout_seconds=60)
    return machine


@pytest.mark.timeout(_SECONDS + 100)
@pytest.mark.parametrize(
    "kind",
    [
        "one-pool",
        *(pytest.param(one, marks=pytest.mark.thorough) for one in CHOSEN if one != "one-pool"),
    ],
)
def test_the_contract_holds_on_real_lvm(machine: Machine, kind: str) -> None:
    chosen = kind if WHOLE else f"{kind} and ({CHOSEN[kind]})"
    options = ["-q", "-x", "-p", "no:cacheprovider", "--noconftest", "-k", chosen]
    done = machine.run(
        ["python3", "-m", "pytest", *options, "tests/storage/lvm_contract.py"],
        timeout_seconds=_SECONDS,
        check=False,
        cwd=FOLDER,
        environment={"PYTHONPATH": f"{FOLDER}/site:{FOLDER}/tests", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.rc == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= (45 if WHOLE else 2)
