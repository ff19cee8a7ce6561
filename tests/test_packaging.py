"""The wheel is what users get: it holds all it must, nothing else, and its programs start."""

from __future__ import annotations

import email.message
import email.parser
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import blockrep

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("blockrep", "blockrep-server")


def run(*argv: str | Path, **environment: str) -> str:
    """Run a program to its end and return what it wrote to stdout; fail with what it said."""
    # The copy under examination is not the tree whose coverage is measured.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(
        argv,
        cwd="/",
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree by the backend in this environment (no network)."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        "import os, sys; os.chdir(sys.argv[1]); "
        "import hatchling.build; hatchling.build.build_wheel(sys.argv[2])"
    )
    run(sys.executable, "-c", build, ROOT, folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, and only the wheel, is installed."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target")
    run(sys.executable, "-m", "pip", "install", *options, folder, wheel)
    return folder


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    source = ROOT / "src"
    written = {
        str(path.relative_to(source))
        for path in (source / "blockrep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package == written
    assert "blockrep/py.typed" in package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_metadata_states_supported_pythons_and_the_patched_msgpack(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Name"] == "blockrep"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(str(metadata["Requires-Python"]).split(",")) == {">=3.11", "<3.14"}
    # CVE-2026-114613 is fixed in 1.2.3; peers' headers go through msgpack.
    assert "msgpack>=1.2.3" in (metadata.get_all("Requires-Dist") or [])


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    assert metadata_of(wheel)["Version"] == blockrep.__version__
    assert importlib.metadata.version("blockrep") == blockrep.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert "version" not in project


def test_the_changelog_knows_the_version_or_it_is_not_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert headings[0] in {"Unreleased", blockrep.__version__}


def test_entry_points_can_be_imported() -> None:
    points = importlib.metadata.distribution("blockrep").entry_points
    scripts = {point.name: point for point in points if point.group == "console_scripts"}
    assert set(scripts) == set(PROGRAMS)
    for point in scripts.values():
        assert callable(point.load())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_installed_wheel_prints_its_version(installed: Path, program: str) -> None:
    """From outside the tree, with the wheel before the tree on the path."""
    assert f"{blockrep.__version__}\n" in run(
        installed / "bin" / program, "--version", PYTHONPATH=str(installed)
    )


def test_the_wheel_is_imported_from_where_it_was_installed(installed: Path) -> None:
    """Guards the test above: the editable tree must not stand in for the wheel."""
    where = run(
        sys.executable, "-c", "import blockrep; print(blockrep.__file__)", PYTHONPATH=str(installed)
    )
    assert Path(where.strip()).is_relative_to(installed)


def test_the_lock_files_name_no_place_and_pin_everything() -> None:
    for lock in ("run", "dev", "bench"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert "://" not in text
        assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), re.MULTILINE)
        for line in re.findall(r"^[a-z].*$", text, re.MULTILINE):
            assert re.match(r"[a-z0-9-]+==\S+( ; .*)? \\$", line), line
