"""What a volume is can be read back from its tags alone; hand-made ones are not believed (I7)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import VolumeError
from blockrep.model.extents import summarize
from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm.tags import (
    BASE,
    MARK,
    PENDING,
    READY,
    REPLICA_TAGS,
    Role,
    good_tags,
    lv_name,
    read_good,
    read_source,
    read_staging,
    replica_name,
    replica_tag,
    role_of,
    source_tags,
    staging_tags,
)
from storage.lvm.builders import ID, LINEAGE, request, volume

LVM_TAG = re.compile(r"[A-Za-z0-9_+./=!:&#-]{1,1024}")


def snapshot(target: str = "tls://replica:8733/vg/lv") -> Snapshot:
    return Snapshot(ID, LINEAGE, 3, 1000, 1 << 20, committed=False, name="br_s", target=target)


@given(st.text(max_size=3000))
def test_any_target_comes_back_and_is_made_of_what_lvm_takes(target: str) -> None:
    try:
        target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    tags = source_tags(snapshot(target), "of", "pool")
    assert all(LVM_TAG.fullmatch(tag) for tag in tags)
    mark = read_source(volume(name="br_s", tags=tags, size_bytes=1 << 20))
    assert mark is not None
    assert mark.snapshot == snapshot(target)
    assert (mark.of_uuid, mark.pool_uuid) == ("of", "pool")


def test_pending_becomes_base() -> None:
    tags = set(source_tags(snapshot(), "of", "pool"))
    assert PENDING in tags
    mark = read_source(volume(tags=tags - {PENDING} | {BASE}))
    assert mark is not None
    assert mark.snapshot.committed


def test_staging_and_good() -> None:
    wanted = request()
    tags = staging_tags(wanted, "of", "pool-uuid", "replica", ready=True)
    assert all(LVM_TAG.fullmatch(tag) for tag in tags)
    mark = read_staging(volume(tags=tags))
    assert mark is not None
    assert mark.ready
    assert mark.fits(wanted)
    assert READY in tags
    good = read_good(volume(tags=good_tags(mark, b"\1" * 32, 4)))
    assert good is not None
    assert (good.snapshot.id, good.snapshot.size_bytes, good.order) == (ID, wanted.size_bytes, 4)
    assert good.snapshot.digest == "01" * 32
    assert good.of_uuid == "of"


@pytest.mark.parametrize(
    "change",
    [
        {"lineage": "cd" * 16},
        {"snapshot_id": "03" * 16},
        {"base_id": ""},
        {"mode": "full"},
        {"sequence": 9},
        {"size_bytes": 512},
        {"plan": summarize([]).__class__(1, 2, 3, b"x" * 32)},
        {"plan": None},
    ],
)
def test_another_transfer_does_not_fit(change: dict[str, object]) -> None:
    mark = read_staging(volume(tags=staging_tags(request(), "of", "pool", "replica", ready=True)))
    assert mark is not None
    assert not mark.fits(request(**change))


def test_what_is_not_ours_is_nothing_to_us() -> None:
    for tags in ((), ("backup",), (Role.GOOD.tag,), (MARK,), (MARK, "blockrep.role=king")):
        one = volume(name="br_g_1", tags=tags)
        assert role_of(one) is None
        assert [read(one) for read in (read_good, read_source, read_staging)] == [None] * 3


@pytest.mark.parametrize("role", [Role.SOURCE, Role.GOOD, Role.STAGING])
def test_a_volume_with_half_of_our_tags_is_an_error_that_names_it(role: Role) -> None:
    one = volume(name="odd", tags=(MARK, role.tag, "blockrep.id=x", "blockrep.lineage=y"))
    with pytest.raises(VolumeError, match="volg/odd: the tag blockrep"):
        {Role.SOURCE: read_source, Role.GOOD: read_good, Role.STAGING: read_staging}[role](one)


def test_names_are_for_people_and_no_guest_disks_of_proxmox() -> None:
    for role in (Role.SOURCE, Role.STAGING, Role.GOOD):
        name = lv_name(role, LINEAGE, 12, ID)
        assert name.startswith("br_")
        assert not name.startswith(("vm-", "base-", "snap_"))
        assert len(name) < 100
    assert replica_name(volume(tags=(*REPLICA_TAGS, replica_tag("copy")))) == "copy"
    assert replica_name(volume(tags=REPLICA_TAGS)) == ""
