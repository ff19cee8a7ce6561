"""What all tests share: hypothesis profiles and the meaning of the marker ``root``."""

from __future__ import annotations

import os

import hypothesis
import pytest

# No deadline: a machine that runs two other things at once is slow, not wrong. In CI the examples
# are the same every time, so that a red run is about the change at hand.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``root`` for everybody else."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs to be root")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
