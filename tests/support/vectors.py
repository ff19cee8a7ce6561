"""Reading the vectors in ``proto/vectors``, whose README.md describes the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROTO = Path(__file__).resolve().parents[2] / "proto"

Json = dict[str, Any]


def load(name: str) -> Any:
    """Return the content of one vector file."""
    return json.loads((PROTO / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


def unplain(value: Any) -> Any:
    """Return a header that was written as JSON: ``{"bin": hexadecimal}`` becomes binary."""
    if isinstance(value, dict):
        if value.keys() == {"bin"}:
            return bytes.fromhex(value["bin"])
        return {key: unplain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [unplain(part) for part in value]
    return value


def by_name(vectors: list[Json]) -> dict[str, Json]:
    """Return vectors by name, for test ids; names are unique."""
    named = {one["name"]: one for one in vectors}
    assert len(named) == len(vectors)
    return named
