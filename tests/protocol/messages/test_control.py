"""HELLO, WELCOME, ABORT: what two hosts tell each other about the connection (I10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import (
    ERRORS_BY_CODE,
    BlockrepError,
    ConnectionLostError,
    InternalError,
    NoSpaceError,
    RefusedError,
    UsageError,
)
from blockrep.protocol.frames import FrameReader
from blockrep.protocol.messages import Abort, Hello, Pull, Welcome, message_from
from blockrep.protocol.messages.control import ABORT_ERRORS
from support.frame_feeding import encoded, read_frames


def across(message: Abort) -> Abort:
    (frame,) = read_frames(FrameReader(), encoded(message))
    received = message_from(frame)
    assert isinstance(received, Abort)
    return received


@pytest.mark.parametrize("error_class", ABORT_ERRORS.values())
def test_an_error_is_the_same_at_both_ends(error_class: type[BlockrepError]) -> None:
    error = error_class("what", where="where", safe="safe", next_step="next")
    received = across(Abort.from_error(error)).to_error()
    assert type(received) is error_class
    assert received.as_fields() == error.as_fields()


def test_parts_that_are_absent_stay_absent() -> None:
    assert across(Abort.from_error(NoSpaceError("full"))) == Abort("no-space", "full")


@pytest.mark.parametrize("error_class", [UsageError, ConnectionLostError, BlockrepError])
def test_errors_of_one_end_alone_travel_as_internal(error_class: type[BlockrepError]) -> None:
    received = across(Abort.from_error(error_class("what"))).to_error()
    assert type(received) is InternalError


@pytest.mark.parametrize("code", ["newer-than-you", "usage", "connection-lost"])
def test_an_unknown_code_is_shown_and_counts_as_refused(code: str) -> None:
    error = Abort(code, "what").to_error()
    assert type(error) is RefusedError
    assert error.what == f"what ({code})"


def test_codes_are_those_of_the_error_classes() -> None:
    assert ABORT_ERRORS.items() <= ERRORS_BY_CODE.items()


@given(st.text(st.characters(), max_size=3000), st.none() | st.text(max_size=10))
def test_whatever_an_error_says_can_be_sent(what: str, where: str | None) -> None:
    received = across(Abort.from_error(InternalError(what, where=where)))
    assert received.what.isprintable()
    assert (received.where is None) == (where is None)
    if what.isprintable() and len(what.encode()) <= 1024:
        assert received.what == what


def test_a_text_is_cut_between_characters() -> None:
    assert Abort.from_error(InternalError("é" * 2000)).what == "é" * 512
    assert Abort.from_error(InternalError("x" + "é" * 2000)).what == "x" + "é" * 511


def test_limits_that_contradict_each_other_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="'window'"):
        Welcome(1, (), "", "", 65536, 4 * 65536 - 1, 100, 200)
    with pytest.raises(ValueError, match="'timeout'"):
        Welcome(1, (), "", "", 65536, 4 * 65536, 100, 199)
    with pytest.raises(ValueError, match="'adopt'"):
        Pull("v", "t", True, True, False, False, 65536, 4 * 65536)
    with pytest.raises(ValueError, match="'window'"):
        Pull("v", "t", False, False, False, False, 65536, 4 * 65536 - 1)
    with pytest.raises(ValueError, match="'versions'"):
        Hello((2, 1), (), "")
