"""Sizes, durations and addresses mean what administrators expect, and nothing else is guessed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.config.values import (
    Address,
    LocalAddress,
    parse_address,
    parse_duration,
    parse_listening_address,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("50M", 50 * 1024**2),
        ("50m", 50 * 1024**2),
        ("64MiB", 64 * 1024**2),
        ("64 MiB", 64 * 1024**2),
        ("10MB", 10_000_000),
        ("1.5G", 3 * 1024**3 // 2),
        ("2T", 2 * 1024**4),
        ("1kB", 1000),
        ("9007199254740993", 9007199254740993),  # beyond what a float holds exactly
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1e9", "50 apples", "1PB", "\uff150", "1.2.3", "0x10", "1M/s"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size; accepted: .*50M"):
        parse_size(text)


def test_sizes_have_a_bound() -> None:
    with pytest.raises(ValueError, match="more than 1 EiB"):
        parse_size("99999999T")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("5m", 300),
        ("2 h", 7200),
        ("1d", 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "nan", "inf", "1:30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; accepted: .*30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address("", 8733)),
        ("*", Address("", 8733)),
        (":9000", Address("", 9000)),
        ("*:9000", Address("", 9000)),
        ("replica", Address("replica", 8733)),
        ("replica.example.com:22", Address("replica.example.com", 22)),
        ("10.0.0.2:0", Address("10.0.0.2", 0)),
        ("[::]:8733", Address("::", 8733)),
        ("[fe80::1%eth0]", Address("fe80::1%eth0", 8733)),
        ("::1", Address("::1", 8733)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["a:b", "a:65536", "a:-1", "[::1", "[::1]x", "[x]:1", "-a", "a b", "a:1:2x", "a:"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address; accepted: HOST"):
        parse_address(text)


@given(st.text(max_size=30))
def test_no_text_does_more_than_raise_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration, parse_address):
        with contextlib.suppress(ValueError):
            parse(text)


def test_unix_sockets() -> None:
    assert parse_listening_address("unix:/run/blockrep.sock") == LocalAddress("/run/blockrep.sock")
    assert str(LocalAddress("/run/x")) == "unix:/run/x"
    assert parse_listening_address("localhost:1") == Address("localhost", 1)
    for text in ("unix:", "unix:run/x", "unix:/run/", "unix:/" + "x" * 107, "unix:/a\0b"):
        with pytest.raises(ValueError, match="is not a Unix socket; accepted: unix:/PATH"):
            parse_listening_address(text)


def test_an_address_is_shown_as_it_is_typed() -> None:
    assert str(Address("", 8733)) == "*:8733"
    assert str(Address("::1", 8733)) == "[::1]:8733"
    assert str(Address("replica", 1)) == "replica:1"
