"""The state machine as a whole; that it equals the table of the norm is in ``test_norm.py``."""

from __future__ import annotations

import pytest

from blockrep.protocol.frames import FrameType
from blockrep.protocol.transitions import TRANSITIONS, Side, State, next_state

FINAL = {State.CLOSED, State.ABORTED}
BEFORE_IDLE = {State.START, State.GREETED}


def test_each_side_is_the_other_of_the_other() -> None:
    assert Side.CLIENT.other is Side.SERVER
    assert Side.SERVER.other is Side.CLIENT


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("side", Side)
def test_abort_ends_every_state_that_is_no_end(state: State, side: Side) -> None:
    expected = None if state in FINAL else State.ABORTED
    assert next_state(state, FrameType.ABORT, side) is expected


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("side", Side)
def test_ping_changes_nothing_and_needs_an_established_session(state: State, side: Side) -> None:
    expected = None if state in FINAL | BEFORE_IDLE else state
    assert next_state(state, FrameType.PING, side) is expected


def test_what_has_no_row_is_not_allowed() -> None:
    for state in State:
        for side in Side:
            for frame_type in set(FrameType) - {FrameType.PING, FrameType.ABORT}:
                expected = TRANSITIONS.get((state, frame_type, side))
                assert next_state(state, frame_type, side) is expected


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.START, State.ABORTED} | set(TRANSITIONS.values())
    assert reached == set(State)
    assert {state for state, _, _ in TRANSITIONS} == set(State) - FINAL


def test_only_acks_cross_what_the_other_end_sends() -> None:
    """Wherever both may send, neither's frame makes the other's, already on its way, a fault."""
    for (state, frame_type, side), after in TRANSITIONS.items():
        for other_state, other_type, other_side in TRANSITIONS:
            if other_state is state and other_side is side.other:
                assert next_state(after, other_type, other_side) is not None, (frame_type, state)
