"""How far staging volumes are durable: one small file each, by the staging volume's lv_uuid.

It counts only in the volume group that it was recorded in: a clone of a group (vgimportclone) has
volumes of the same lv_uuid, and not their content. A file that is missing, damaged or about another
plan means 0: replaying extents is idempotent.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from blockrep.errors import StorageError
from blockrep.storage.files import make_directories, write_durably

__all__ = ["Cursor", "CursorFile", "cursor_path", "recorded_group", "save_state"]

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything below ``cursor_bytes`` is durable; ``chain`` is the running digest there."""

    cursor_bytes: int
    chain: bytes


def cursor_path(state_directory: Path, staging_uuid: str) -> Path:
    """Return where the cursor of a staging volume lies."""
    return state_directory / "cursors" / staging_uuid


class CursorFile:
    """The cursor of one staging volume.

    Args:
        state_directory: of the settings.
        staging_uuid: lv_uuid.
        group_uuid: vg_uuid.
    """

    def __init__(self, state_directory: Path, staging_uuid: str, group_uuid: str) -> None:
        self._path = cursor_path(state_directory, staging_uuid)
        self._group_uuid = group_uuid

    def load(self, plan_digest: bytes) -> Cursor | None:
        """Return the cursor in this plan, None if there is none that can be relied on."""
        try:
            body, _, check = self._path.read_bytes().rpartition(b"\n")
            fields = json.loads(body)
            if check.decode() != _check(body) or fields["plan"] != plan_digest.hex():
                return None
            if fields["group"] != self._group_uuid:
                return None
            return Cursor(int(fields["cursor"]), bytes.fromhex(fields["chain"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, plan_digest: bytes, cursor: Cursor) -> None:
        """Record, durably. Raises StorageError."""
        fields = {
            "group": self._group_uuid,
            "plan": plan_digest.hex(),
            "cursor": cursor.cursor_bytes,
            "chain": cursor.chain.hex(),
        }
        body = json.dumps(fields).encode()
        save_state(self._path, body + b"\n" + _check(body).encode())

    def remove(self) -> None:
        """Forget; it may be gone already."""
        self._path.unlink(missing_ok=True)


def recorded_group(path: Path) -> str:
    """Return the vg_uuid that a file in the state directory tells, empty if it tells none.

    Of a cursor, or of the note on a metadata snapshot: its first line is a JSON object.
    """
    try:
        return str(json.loads(path.read_bytes().partition(b"\n")[0]).get("group", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def save_state(path: Path, content: bytes) -> None:
    """Replace a file in the state directory, durably; after a crash it is the old one or this.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        make_directories(path.parent)
        write_durably(path, content)
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            safe="the volumes are untouched",
            next_step="check storage.state_directory and the room of its file system",
        ) from error


def _check(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
