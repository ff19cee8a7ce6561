"""The units are as tight as promised; that it is enough, tests/vm/test_ssh_lvm.py shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[1] / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
#: systemd's measure, from 0 to 10.
MOST_EXPOSED = 3.5


def analyze(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_little_is_exposed(unit: Path) -> None:
    text = analyze("security", "--offline=true", "--no-pager", str(unit))
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert match is not None, text
    assert float(match[1]) <= MOST_EXPOSED


def test_what_is_documented_can_be_written() -> None:
    """All but the unit's own folders is read-only for the server."""
    unit = (UNITS / "blockrep-server.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)", unit, re.MULTILINE))
    assert settings["ProtectSystem"] == "strict"
    text = (UNITS.parent / "docs" / "configuration.md").read_text()
    for key, folder, setting in (
        ("audit_file", "/var/log", "LogsDirectory"),
        ("image_directory", "/var/lib", "StateDirectory"),
        ("state_directory", "/var/lib", "StateDirectory"),
        ("runtime_directory", "/run", "RuntimeDirectory"),
    ):
        (path,) = re.findall(rf'^#{key} = "([^"]+)"', text, re.MULTILINE)
        assert Path(path).is_relative_to(f"{folder}/{settings.get(setting)}"), key


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_what_image_files_need_is_said_in_the_unit(unit: Path) -> None:
    """All but a few folders is read-only, and root may not open what is others'."""
    comment = " ".join(re.findall(r"^#(.*)", unit.read_text(), re.MULTILINE))
    settings = re.sub(r"^#.*", "", unit.read_text(), flags=re.MULTILINE)
    assert "ProtectSystem=strict" in settings
    assert "CAP_DAC" not in settings
    for word in ("ReadWritePaths=", "CapabilityBoundingSet=", "CAP_DAC_READ_SEARCH"):
        assert word in comment


def test_every_unit_is_there() -> None:
    assert {path.name for path in UNITS.iterdir()} == {
        "blockrep-server.service",
        "blockrep-server.socket",
        "blockrep-push@.service",
        "blockrep-push@.timer",
    }


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_the_programs_are_ours(unit: Path) -> None:
    (program,) = re.findall(r"^ExecStart=/usr/local/bin/(\S+)", unit.read_text(), re.MULTILINE)
    assert program in {"blockrep", "blockrep-server"}
    assert "CAP_SYS_ADMIN" in unit.read_text(), "device-mapper needs it"
