"""The catalogue of scenarios is whole, and docs/performance.md knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.arguments import parse_arguments
from catalogue import CATALOGUE
from product import ways_of

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


@pytest.mark.parametrize("option", ["compress", "page-delta"])
def test_the_ways_of_an_option_are_ways_of_a_push(option: str) -> None:
    said = [
        getattr(parse_arguments(["push", "/a", "host:/a", *words]), option.replace("-", "_"))
        for words in ways_of(option).values()
    ]
    assert said == [None, True, False]
