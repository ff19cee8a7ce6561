"""A cursor is durable when it is saved, and believed only if it is whole and of this plan (I1)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from blockrep.errors import StorageError
from blockrep.storage.lvm.cursors import (
    Cursor,
    CursorFile,
    cursor_path,
    recorded_group,
    save_state,
)

PLAN, OTHER = b"p" * 32, b"o" * 32
GROUP = "group-uuid"
CURSOR = Cursor(123456, b"c" * 32)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "uuid", GROUP)
    assert file.load(PLAN) is None
    file.save(PLAN, CURSOR)
    assert CursorFile(tmp_path, "uuid", GROUP).load(PLAN) == CURSOR
    assert file.load(OTHER) is None
    assert CursorFile(tmp_path, "another", GROUP).load(PLAN) is None
    file.remove()
    file.remove()
    assert file.load(PLAN) is None


def test_one_of_another_group_is_none(tmp_path: Path) -> None:
    """A clone of the group (vgimportclone) has volumes of the same lv_uuid."""
    CursorFile(tmp_path, "uuid", GROUP).save(PLAN, CURSOR)
    assert CursorFile(tmp_path, "uuid", "clone-uuid").load(PLAN) is None


def test_one_that_tells_no_group_is_none(tmp_path: Path) -> None:
    """Such as older versions wrote."""
    fields = {"plan": PLAN.hex(), "cursor": 123456, "chain": "63" * 32}
    for more in ({"group": GROUP}, {}):
        body = json.dumps(fields | more).encode()
        check = hashlib.blake2b(body, digest_size=16).hexdigest().encode()
        save_state(tmp_path / "cursors" / "uuid", body + b"\n" + check)
        assert CursorFile(tmp_path, "uuid", GROUP).load(PLAN) == (CURSOR if more else None)


def test_a_damaged_one_starts_over(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "uuid", GROUP)
    file.save(PLAN, CURSOR)
    path = tmp_path / "cursors" / "uuid"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert file.load(PLAN) is None, at
        path.write_bytes(whole[:at])
        assert file.load(PLAN) is None, at


def test_content_and_name_are_synced_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "file"
    seen: list[str] = []

    def fsync(fd: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    save_state(path, b"content")
    # The name of the folder, the content, the name.
    assert seen == [str(tmp_path), f"{path}.tmp", str(path.parent)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b"content"


def test_a_full_file_system_is_an_error_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    save_state(path, b"old")

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        save_state(path, b"new")
    assert path.read_bytes() == b"old"


def test_which_group_a_file_is_of(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "uuid", GROUP)
    path = cursor_path(tmp_path, "uuid")
    assert recorded_group(path) == ""
    file.save(PLAN, CURSOR)
    assert recorded_group(path) == GROUP
    for text in ("", "{}", "[1]", '{"gro'):
        path.write_text(text)
        assert recorded_group(path) == ""
