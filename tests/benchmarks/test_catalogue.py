"""The catalogue of scenarios is whole, and docs/performance.md knows it."""

from __future__ import annotations

from pathlib import Path

from catalogue import CATALOGUE
from product import compress_options

ROOT = Path(__file__).resolve().parent.parent.parent


def test_names_are_unique() -> None:
    names = [one.name for one in CATALOGUE]
    assert len(set(names)) == len(names)


def test_what_a_smoke_run_leaves_out_is_like_something_that_it_runs() -> None:
    run = {one.name for one in CATALOGUE if not one.like}
    assert {one.like for one in CATALOGUE if one.like} <= run


def test_the_documentation_lists_every_scenario() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    missing = [one.name for one in CATALOGUE if f"`{one.name}`" not in text]
    assert not missing


def test_compression_is_compared_with_none() -> None:
    assert {"on", "off"} <= set(compress_options())
