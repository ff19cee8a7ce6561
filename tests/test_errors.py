"""Every error says what, where, what is safe, what next, and has an exit code of its own (I10)."""

from __future__ import annotations

from blockrep import errors
from blockrep.errors import ERRORS_BY_CODE, BlockrepError, NoSpaceError


def test_an_error_is_one_line_of_its_parts() -> None:
    error = NoSpaceError("pool full", where="vg/pool", safe="nothing changed", next_step="lvextend")
    assert str(error) == "vg/pool: pool full; nothing changed; lvextend"
    assert str(NoSpaceError("pool full")) == "pool full"


def test_the_parts_that_are_there_travel() -> None:
    assert NoSpaceError("pool full", next_step="x").as_fields() == {
        "code": "no-space",
        "what": "pool full",
        "next": "x",
    }


def test_exit_codes_and_codes_are_distinct_and_drawn_in_the_tree() -> None:
    classes = BlockrepError.__subclasses__()
    leaves = {cls.code: cls for cls in ERRORS_BY_CODE.values()}
    assert len(leaves) == len({cls.exit_code for cls in leaves.values()}) == len(ERRORS_BY_CODE)
    tree = errors.__doc__ or ""
    for cls in classes:
        if cls.__module__ == "blockrep.errors":
            assert f"{cls.__name__} " in tree
            assert str(cls.exit_code) in tree
