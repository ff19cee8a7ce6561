"""Fixtures of the tests that need real LVM: two virtual machines, fresh volumes for each test.

The machines boot once for a test run; a test that kills one need not boot it again. Without the
tools (or, to build the image once, without root) the tests are skipped; where they must run,
``BLOCKREP_REQUIRE_VM=1`` turns that into a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from vm.harness.errors import UnavailableError
from vm.harness.groups import Groups, MakeGroups
from vm.harness.image import Image, cached_image
from vm.harness.pair import Pair

#: What tests import from here to annotate fixtures.
__all__ = ["Groups", "MakeGroups"]

#: The first test may build the image; every test runs emulated machines.
_TIMEOUT_SECONDS = 900


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the tests in virtual machines the time that they need.

    Those that are marked ``thorough`` are for scripts/reliability-report.
    """
    asked = "thorough" in config.option.markexpr or os.environ.get("BLOCKREP_THOROUGH") == "1"
    if not asked:
        left_out = [one for one in items if one.get_closest_marker("thorough")]
        items[:] = [one for one in items if not one.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if item.get_closest_marker("vm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, None]:
    """Show the consoles of a failed test's machines."""
    outcome: pytest.TestReport = yield
    report = outcome.get_result()
    pair = getattr(item, "funcargs", {}).get("pair")
    if report.failed and isinstance(pair, Pair):
        for machine in pair.machines:
            title = f"console of {machine.host.name}"
            report.sections.append((title, machine.console_tail()))


@pytest.fixture(scope="session")
def image() -> Image:
    """What the machines boot from."""
    try:
        return cached_image()
    except UnavailableError as error:
        if os.environ.get("BLOCKREP_REQUIRE_VM") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def booted_pair(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines for the whole run; tests take ``pair``."""
    folder: Path = tmp_path_factory.mktemp("vm")
    pair = Pair.create(image, folder)
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def volatile_pair(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines whose disks fail as disks do; whoever takes them resets them."""
    pair = Pair.create(image, tmp_path_factory.mktemp("volatile"), volatile=True)
    yield pair
    pair.close()


@pytest.fixture
def pair(booted_pair: Pair) -> Pair:
    """Two running machines with empty disks and a sound link."""
    booted_pair.reset()
    return booted_pair


@pytest.fixture
def make_groups(pair: Pair) -> MakeGroups:
    """Make ``volg/thin_volume`` and the pool of ``vgreplica``, with the sizes that a test wants."""
    return MakeGroups(pair)


@pytest.fixture
def groups(make_groups: MakeGroups) -> Groups:
    """Give the volume groups of a test that has no wishes."""
    return make_groups()
