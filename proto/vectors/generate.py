"""Writes the test vectors of the protocol: ``python proto/vectors/generate.py [FOLDER]``.

The vectors are part of the norm, so what is generated is looked at before it is committed: besides
this code, the tests read them with a decoder of their own that was written from PROTOCOL.md alone.
"""  # noqa: INP001 - a folder of programs, not a package

from __future__ import annotations

import json
import sys
from pathlib import Path

from conversations import digest_vectors, transcripts
from examples import described
from frames import (
    decode_only,
    ignored,
    invalid_keys,
    invalid_prefixes,
    invalid_transfers,
    valid_messages,
)


def main(folder: Path) -> None:
    """Write all files."""
    frames = {
        "frames": [{"name": name, **described(one)} for name, one in valid_messages()],
        "decode_only": list(decode_only()),
        "ignored": list(ignored()),
    }
    invalid = [
        {"name": name, "hex": raw.hex(), "code": "protocol", "says": says}
        for name, raw, says in (*invalid_prefixes(), *invalid_keys(), *invalid_transfers())
    ]
    for file_name, content in (
        ("frames", frames),
        ("invalid", invalid),
        ("digests", digest_vectors()),
        ("transcripts", list(transcripts())),
    ):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / f"{file_name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
