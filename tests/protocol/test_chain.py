"""The chain proves which frames, in which order, made a staging volume (I2). Values: vectors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.chain import advance_chain, first_chain
from support import plain_decoder

ID = "5a" * 16
U64 = st.integers(0, (1 << 63) - 1)
EXTENTS = st.builds(Extent, U64, U64, st.sampled_from(ExtentKind))


def test_the_first_value_is_bound_to_snapshot_and_plan() -> None:
    values = {
        first_chain(ID, bytes(32)),
        first_chain("5b" * 16, bytes(32)),
        first_chain(ID, b"\1" * 32),
    }
    assert len(values) == 3
    assert {len(value) for value in values} == {32}


def test_order_kind_place_and_content_all_count() -> None:
    start = first_chain(ID, bytes(32))
    one, two = Extent(0, 8), Extent(8, 8)
    digest = bytes(16)
    values = {
        advance_chain(start, [one, two], digest),
        advance_chain(start, [two, one], digest),
        advance_chain(advance_chain(start, [one], digest), [two], digest),
        advance_chain(start, [one, Extent(8, 8, ExtentKind.ZERO)], digest),
        advance_chain(start, [one, Extent(8, 9)], digest),
        advance_chain(start, [one, two], b"\1" * 16),
    }
    assert len(values) == 6


@given(st.binary(min_size=32, max_size=32), st.lists(EXTENTS, max_size=5), st.binary(max_size=16))
def test_it_is_what_the_text_says(chain: bytes, segments: list[Extent], digest: bytes) -> None:
    header = {
        "s": [n for one in segments for n in (int(one.kind), one.offset_bytes, one.length_bytes)],
        "x": digest,
    }
    assert advance_chain(chain, segments, digest) == plain_decoder.chain_next(chain, header)
