"""A delta that is not whole is no delta (trap 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import StorageError
from blockrep.storage.lvm.thin_xml import Run, RunKind, ThinXml

CHUNK = 64 * 1024
HEAD = b'<superblock uuid="" time="1" transaction="7" data_block_size="128" nr_data_blocks="9">'
DELTA = (
    HEAD + b'<diff left="1" right="2">'
    b'<same begin="0" length="2"/><different length="1" begin="2"/>'
    b'<right_only begin="5" length="3"/><left_only begin="9" length="1"/></diff></superblock>'
)
DUMP = (
    HEAD + b'<device dev_id="2" mapped_blocks="3" transaction="0" creation_time="0" snap_time="1">'
    b'<single_mapping origin_block="1" data_block="7" time="0"/>'
    b'<range_mapping origin_begin="4" data_begin="8" length="2" time="1"/></device></superblock>'
)


def test_a_delta() -> None:
    parser = ThinXml()
    assert list(parser.runs([DELTA])) == [
        Run(RunKind.SAME, 0, 2 * CHUNK),
        Run(RunKind.DIFFERENT, 2 * CHUNK, CHUNK),
        Run(RunKind.RIGHT_ONLY, 5 * CHUNK, 3 * CHUNK),
        Run(RunKind.LEFT_ONLY, 9 * CHUNK, CHUNK),
    ]
    assert (parser.transaction, parser.chunk_bytes) == (7, CHUNK)


def test_a_dump() -> None:
    assert list(ThinXml().runs([DUMP])) == [
        Run(RunKind.MAPPED, CHUNK, CHUNK),
        Run(RunKind.MAPPED, 4 * CHUNK, 2 * CHUNK),
    ]


@given(st.sampled_from([DELTA, DUMP]), st.data())
def test_it_may_arrive_in_any_pieces(text: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(ThinXml().runs(pieces)) == list(ThinXml().runs([text]))


@pytest.mark.parametrize("text", [DELTA, DUMP])
def test_cut_short_anywhere_is_an_error(text: bytes) -> None:
    for end in range(len(text)):
        with pytest.raises(StorageError, match="cannot be used"):
            list(ThinXml().runs([text[:end]]))


@pytest.mark.parametrize(
    "body",
    [
        b"",  # what thin_dump prints, at status 0, for an id that it does not know
        b'<diff><different begin="4" length="1"/><different begin="4" length="1"/></diff>',
        b'<diff><different begin="4" length="1"/><same begin="1" length="1"/></diff>',
        b'<diff><different begin="4" length="0"/></diff>',
        b'<diff><different begin="x" length="1"/></diff>',
        b'<diff><different length="1"/></diff>',
        b'<def name="1"/><device dev_id="2"><ref name="1"/></device>',
        b'<diff><changed begin="1" length="1"/></diff>',
    ],
)
def test_what_would_hide_a_change_is_an_error(body: bytes) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        list(ThinXml().runs([HEAD + body + b"</superblock>"]))


@given(st.binary(max_size=200))
def test_only_documented_errors_come_out(text: bytes) -> None:
    with pytest.raises(StorageError):
        list(ThinXml().runs([HEAD, text]))
