"""What lvs and dmsetup print is read as it is meant, or not at all (traps 7 and 14)."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import InternalError, StorageError
from blockrep.storage.lvm.reports import parse_mapped_bytes, parse_pool_status, parse_volumes

ROW = {
    "vg_name": "volg", "vg_uuid": "V", "vg_extent_size": "4194304", "lv_name": "thin_volume",
    "lv_uuid": "L", "lv_size": "67108864", "lv_layout": "thin,sparse", "pool_lv": "pool",
    "pool_lv_uuid": "P", "thin_id": "3", "origin": "", "lv_permissions": "writeable",
    "lv_active": "active", "lv_device_open": "open", "lv_merging": "", "lv_tags": "a,b",
    "chunk_size": "0", "discards": "", "zero": "", "lv_when_full": "", "lv_health_status": "",
    "transaction_id": "7",
}  # fmt: skip


def report(*rows: dict[str, str], name: str = "lv") -> bytes:
    return json.dumps({"report": [{name: list(rows)}]}).encode()


def test_a_thin_volume() -> None:
    (volume,) = parse_volumes(report(ROW))
    assert (volume.full_name, volume.kind, volume.thin_id) == ("volg/thin_volume", "thin", 3)
    assert volume.transaction == 7
    assert (volume.size_bytes, volume.extent_bytes) == (64 << 20, 4 << 20)
    assert volume.tags == {"a", "b"}
    assert volume.open
    assert volume.active
    assert not volume.read_only


def test_a_pool_and_what_is_neither() -> None:
    pool = ROW | {"lv_layout": "thin,pool", "zero": "zero", "thin_id": "", "chunk_size": "65536",
                  "lv_when_full": "queue", "lv_tags": "", "pool_lv": ""}  # fmt: skip
    thick = ROW | {"lv_layout": "linear", "thin_id": "", "lv_name": "[lvol0_pmspare]"}
    volumes = parse_volumes(report(pool, thick, name="seg"))
    assert [one.kind for one in volumes] == ["pool", "other"]
    assert volumes[0].zeroes
    assert volumes[0].queues_when_full
    assert volumes[0].tags == frozenset()
    assert volumes[1].hidden
    assert volumes[1].name == "lvol0_pmspare"


def test_a_read_only_one_activated_so_is_read_only() -> None:
    (volume,) = parse_volumes(report(ROW | {"lv_permissions": "read-only-override"}))
    assert volume.read_only


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"report": 1}', b'{"report": [{"lv": [{}]}]}', b'{"report": [1]}',
     report(ROW | {"lv_size": "64.00k"})],
)  # fmt: skip
def test_what_lvs_does_not_print_is_an_error(text: bytes) -> None:
    with pytest.raises(StorageError, match="lvs printed"):
        parse_volumes(text)


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.sampled_from(["report", "lv", "lv_name"]), one),
)


@given(JSON)
def test_only_documented_errors_come_out(value: object) -> None:
    with contextlib.suppress(StorageError):
        parse_volumes(json.dumps(value).encode())


STATUS = "0 524288 thin-pool 4 16/1024 12/4096 - rw discard_passdown queue_if_no_space - 1024 "


def test_the_status_of_a_pool() -> None:
    status = parse_pool_status(STATUS.encode())
    assert status is not None
    assert (status.transaction, status.mode, status.held_root) == (4, "rw", None)
    assert (status.used_metadata_blocks, status.total_metadata_blocks) == (16, 1024)
    assert (status.used_chunks, status.total_chunks) == (12, 4096)
    assert not status.needs_check
    held = parse_pool_status(STATUS.replace(" - rw", " 77 ro").encode())
    assert held is not None
    assert (held.held_root, held.mode) == (77, "ro")
    broken = parse_pool_status(STATUS.replace("space - 1024", "space needs_check 1024").encode())
    assert broken is not None
    assert broken.needs_check
    failed = parse_pool_status(b"0 524288 thin-pool Fail")
    assert failed is not None
    assert failed.mode == "fail"


def test_the_status_of_something_else() -> None:
    assert parse_pool_status(b"0 8 linear") is None
    with pytest.raises(InternalError):
        parse_pool_status(b"0 524288 thin-pool 4 16/1024")


def test_what_a_thin_volume_maps() -> None:
    assert parse_mapped_bytes(b"0 131072 thin 1024 131071") == 512 * 1024
    assert parse_mapped_bytes(b"0 131072 thin Fail") is None
    assert parse_mapped_bytes(b"0 8 linear 1") is None
    assert parse_mapped_bytes(b"") is None
