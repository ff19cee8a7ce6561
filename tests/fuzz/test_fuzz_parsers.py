"""Whatever configuration, LVM or the thin tools say: parsers raise documented errors only."""

from __future__ import annotations

import contextlib
import json
import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from blockrep.config.settings import Directories, read_settings
from blockrep.errors import BlockrepError, InternalError
from blockrep.model.names import parse_target, parse_volume
from blockrep.storage.lvm.commands import list_volumes
from blockrep.storage.lvm.reports import parse_mapped_bytes, parse_pool_status, parse_volumes
from blockrep.storage.lvm.thin_xml import ThinXml
from blockrep.storage.lvm.versions import parse_version
from storage.lvm_simulation import SimulatedGroup, SimulatedRunner
from support.reports import record

TIMES = 3000
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
DIRECTORIES = Directories(Path("/etc/b"), Path("/var/b"), Path("/run/b"))
TOML = [re.sub(r"^#(?! )", "", one, flags=re.MULTILINE).encode() for one in re.findall(
    r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL
)]  # fmt: skip
XML = [
    (
        b'<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="256">'
        b'<diff left="1" right="2"><same begin="0" length="8"/><different begin="8" length="8"/>'
        b'<left_only begin="20" length="4"/><right_only begin="36" length="4"/></diff></superblock>'
    ),
    (
        b'<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="256">'
        b'<device dev_id="1" mapped_blocks="2"><single_mapping origin_block="3" data_block="0"/>'
        b'<range_mapping origin_begin="32" data_begin="16" length="8"/></device></superblock>'
    ),
]
STATUS = [
    b"0 524288 thin-pool 5 100/1024 20/4096 - rw discard_passdown queue_if_no_space - 1024 \n",
    (
        b"0 524288 thin-pool 5 100/1024 20/4096 77 out_of_data_space discard_passdown"
        b" error_if_no_space needs_check 1024 \n"
    ),
    b"0 131072 thin 2048 131071\n",
    b"0 524288 thin-pool Fail\n",
]
NAMES = [b"vg/lv", b"host:vg/lv", b"tls://[::1]:8733//srv/x.img", b"ssh://u@h:22/vg/lv", b"./a.img"]


def lvs_output() -> list[bytes]:
    group = SimulatedGroup("volg", 65536)
    live = group.add("live", 1 << 20)
    group.snapshot(live, "br_s", ["blockrep", "blockrep.role=source"])
    return [SimulatedRunner([group]).run(list_volumes("volg")).stdout]


def parse_toml(content: bytes) -> None:
    try:
        values = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return  # load_settings says so
    read_settings(values, Path("/etc/blockrep/config.toml"), DIRECTORIES)


def parse_xml(content: bytes) -> None:
    at = len(content) // 3
    runs = list(ThinXml().runs([content[:at], content[at:]]))
    assert all(run.length_bytes > 0 for run in runs)
    ends = [run.offset_bytes + run.length_bytes for run in runs]
    assert all(end <= run.offset_bytes for end, run in zip(ends, runs[1:], strict=False))


def parse_status(content: bytes) -> None:
    parse_mapped_bytes(content)
    parse_version(content.decode(errors="replace"))
    # A line of a thin pool that cannot be understood is a defect: the kernel never prints one.
    with contextlib.suppress(InternalError, ValueError):
        parse_pool_status(content)


def parse_names(content: bytes) -> None:
    for parse in (parse_volume, lambda text: parse_target(text, 8733)):
        with contextlib.suppress(ValueError):
            parse(content.decode(errors="surrogateescape"))


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        way = rng.randrange(5)
        if way == 0:
            changed[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif way == 1:
            del changed[at : at + rng.randrange(1, 30)]
        elif way == 2:
            changed[at : at + 1] = rng.choice([b"-1", b"99999999999999999999", b'"', b"null", b"["])
        elif way == 3:
            changed[at:at] = changed[at : at + rng.randrange(1, 100)]
        elif changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize(
    ("parse", "corpus"),
    [
        (parse_toml, TOML),
        (parse_volumes, lvs_output()),
        (parse_xml, XML),
        (parse_status, STATUS),
        (parse_names, NAMES),
    ],
    ids=["configuration", "lvs", "thin XML", "dmsetup", "names"],
)
def test_only_documented_errors(parse: Callable[[bytes], object], corpus: list[bytes]) -> None:
    rng = random.Random(json.dumps([parse.__name__]))
    refused = 0
    for _ in range(TIMES):
        content = mutated(rng.choice(corpus), rng)
        try:
            parse(content)
        except InternalError:
            raise AssertionError(content) from None
        except BlockrepError:
            refused += 1
    assert refused or parse in {parse_status, parse_names}
    record("fuzzed texts", TIMES, 0)
