"""A thin_delta that misses changes is not used, whatever it calls itself (trap 1)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blockrep.errors import StorageError, UnsupportedHostError
from blockrep.storage.lvm import versions
from blockrep.storage.lvm.runner import CommandRecord, CommandResult, ProcessRunner
from blockrep.storage.lvm.versions import check_thin_tools, parse_version

HEAD = b'<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="256">'
RIGHT = b"""<diff left="1" right="2"><same begin="0" length="8"/><different begin="8" length="8"/>
<right_only begin="20" length="4"/><same begin="32" length="4"/><left_only begin="36" length="4"/>
</diff></superblock>"""
# What 1.0.0 to 1.0.5 say: runs joined that are neighbours in the volume only.
WRONG = RIGHT.replace(
    b'<same begin="0" length="8"/><different begin="8" length="8"/>',
    b'<same begin="0" length="16"/>',
)


class Tools:
    """Answers as thin_delta and thin_restore of some version."""

    def __init__(
        self, version: bytes, delta: bytes = HEAD + RIGHT, restore_status: int = 0
    ) -> None:
        self._version, self._delta, self._restore_status = version, delta, restore_status

    def take_log(self) -> list[CommandRecord]:
        return []

    def run(self, argv: Sequence[str]) -> CommandResult:
        if argv[0] == "thin_delta":
            return CommandResult(tuple(argv), 0 if self._version else 1, self._version, "")
        return CommandResult(tuple(argv), self._restore_status, b"", "no")

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        assert argv[0] == "thin_delta"
        if not self._delta:
            raise StorageError("thin_delta failed with status 1")
        yield self._delta


@pytest.fixture(autouse=True)
def untrusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_trusted", set())


@pytest.mark.parametrize("version", [b"0.9.0\n", b"1.0.6\n", b"thin_delta 1.0.12\n"])
def test_good_ones_pass(version: bytes) -> None:
    check_thin_tools(Tools(version))


@pytest.mark.parametrize("version", [f"1.0.{patch}" for patch in range(6)])
def test_versions_that_miss_changes_are_refused(version: str) -> None:
    with pytest.raises(UnsupportedHostError, match=f"{version} silently misses changes"):
        check_thin_tools(Tools(version.encode()))


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        (Tools(b"0.9.0", HEAD + WRONG), "misses changes"),
        (Tools(b"1.1.0", HEAD), "self-test failed"),
        (Tools(b"1.1.0", b""), "self-test failed"),
        (Tools(b"1.1.0", restore_status=1), "self-test cannot run"),
        (Tools(b"unknown"), "version is not known"),
        (Tools(b""), "version is not known"),
    ],
)
def test_what_it_does_counts_more_than_what_it_says(tools: Tools, words: str) -> None:
    with pytest.raises(UnsupportedHostError, match=words) as caught:
        check_thin_tools(tools)
    assert "install thin-provisioning-tools" in str(caught.value)


def test_the_check_is_made_once() -> None:
    check_thin_tools(Tools(b"0.9.0"))
    check_thin_tools(Tools(b"1.0.3"))


def test_another_installation_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade under a server that runs for months."""
    program = tmp_path / "thin_delta"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_thin_tools(Tools(b"0.9.0"))
    program.write_text("#!/bin/sh\n# another\n")
    with pytest.raises(UnsupportedHostError, match=r"1\.0\.3 silently misses changes"):
        check_thin_tools(Tools(b"1.0.3"))


def test_the_tools_of_this_host() -> None:
    if shutil.which("thin_restore", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("thin-provisioning-tools are not installed")
    check_thin_tools(ProcessRunner(60))


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.9.0", (0, 9, 0)), ("thin_delta 1.0.12", (1, 0, 12)), ("", None), ("1.0", None)],
)
def test_version_numbers(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version
