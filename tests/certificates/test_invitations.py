"""An invitation is good once, for a short time, for whoever has the whole token."""

from __future__ import annotations

import datetime as dt
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.certificates.invitations import Invitations, Token
from blockrep.errors import RefusedError, UsageError

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
TOKEN = Token("replica", 8733, "replica", b"\1" * 32, "alpha", "0123456789abcdef", b"\2" * 32)
KEY, OTHER_KEY = b"a public key", b"another one"


def test_a_token_comes_back_from_what_is_pasted() -> None:
    text = TOKEN.encode()
    assert "\n" not in text
    assert Token.decode(text) == TOKEN
    assert Token.decode(f"  {text[:20]}\n{text[20:]} \n") == TOKEN


def test_a_token_that_is_not_whole_is_none() -> None:
    text = TOKEN.encode()
    for end in range(len(text)):
        with pytest.raises(UsageError, match="is not a whole token"):
            Token.decode(text[:end])


@given(st.text(max_size=300))
def test_only_documented_errors_come_out(text: str) -> None:
    with pytest.raises(UsageError):
        Token.decode(f"brp1-{text}")


def test_for_one_key_which_may_come_again(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    identifier, secret = invitations.create("alpha", 90, MINUTE, NOW)
    assert invitations.any_open(NOW)
    used = invitations.redeem(identifier, secret, KEY, NOW)
    assert (used.name, used.serial) == ("alpha", "")
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, OTHER_KEY, NOW)
    invitations.note(used, "1f")
    assert invitations.any_open(NOW)
    assert invitations.redeem(identifier, secret, KEY, NOW).serial == "1f"
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, KEY, NOW + MINUTE)


def test_of_many_keys_at_once_one_wins(tmp_path: Path) -> None:
    identifier, secret = Invitations(tmp_path).create("alpha", 90, MINUTE, NOW)
    together = threading.Barrier(8)

    def come(number: int) -> bool:
        together.wait(10)
        try:
            Invitations(tmp_path).redeem(identifier, secret, bytes([number]), NOW)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(come, range(8))) == 1


def test_the_newest_for_a_name_is_the_only_one(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    first = invitations.create("alpha", 90, MINUTE, NOW)
    other = invitations.create("beta", 90, MINUTE, NOW)
    second = invitations.create("alpha", 90, MINUTE, NOW)
    with pytest.raises(RefusedError):
        invitations.redeem(*first, KEY, NOW)
    assert invitations.redeem(*second, KEY, NOW).name == "alpha"
    assert invitations.redeem(*other, KEY, NOW).name == "beta"


def test_not_after_its_time(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    identifier, secret = invitations.create("alpha", 90, MINUTE, NOW)
    assert not invitations.any_open(NOW + MINUTE)
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, KEY, NOW + MINUTE)
    invitations.create("beta", 90, MINUTE, NOW + MINUTE)
    (left,) = (tmp_path / "invitations").iterdir()
    assert json.loads(left.read_text())["name"] == "beta"


def test_guesses_make_it_void(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    identifier, secret = invitations.create("alpha", 90, MINUTE, NOW)
    for _ in range(4):
        with pytest.raises(RefusedError):
            invitations.redeem(identifier, bytes(32), KEY, NOW)
    assert invitations.any_open(NOW)
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, bytes(32), KEY, NOW)
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, KEY, NOW)


@pytest.mark.parametrize("identifier", ["", "../x", "0" * 15, "0123456789ABCDEF", "a/b", "x" * 16])
def test_an_id_is_never_a_path(tmp_path: Path, identifier: str) -> None:
    with pytest.raises(RefusedError):
        Invitations(tmp_path).redeem(identifier, bytes(32), KEY, NOW)


def test_the_secret_is_nowhere_on_disk(tmp_path: Path) -> None:
    _, secret = Invitations(tmp_path).create("alpha", 90, MINUTE, NOW)
    (file,) = (tmp_path / "invitations").iterdir()
    assert secret.hex() not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.write_text("damaged")
    assert not Invitations(tmp_path).any_open(NOW)


def test_a_wrong_letter_is_noticed() -> None:
    """The token was typed, or damaged in a mail."""
    text = TOKEN.encode()
    for at in range(len(text) - 1):  # the last letter has bits that mean nothing
        with pytest.raises(UsageError, match="is not a whole token"):
            Token.decode(f"{text[:at]}{'A' if text[at] != 'A' else 'B'}{text[at + 1 :]}")


def test_what_is_named_by_a_path_is_no_invitation(tmp_path: Path) -> None:
    elsewhere = Invitations(tmp_path / "elsewhere")
    identifier, secret = elsewhere.create("alpha", 90, MINUTE, NOW)
    here = Invitations(tmp_path / "here")
    here.create("beta", 90, MINUTE, NOW)
    path = f"../../elsewhere/invitations/{identifier}"
    assert (tmp_path / "here/invitations" / f"{path}.json").exists()
    with pytest.raises(RefusedError):
        here.redeem(path, secret, KEY, NOW)


def test_one_that_was_made_void_stays_void(tmp_path: Path) -> None:
    """While its certificate was signed, somebody was invited anew by that name."""
    invitations = Invitations(tmp_path)
    identifier, secret = invitations.create("alpha", 90, MINUTE, NOW)
    used = invitations.redeem(identifier, secret, KEY, NOW)
    invitations.create("alpha", 90, MINUTE, NOW)
    invitations.note(used, "1f")
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, KEY, NOW)


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    identifier, secret = invitations.create("alpha", 90, MINUTE, NOW)
    (tmp_path / "invitations" / f"{identifier}.json").write_text("damaged")
    with pytest.raises(RefusedError):
        invitations.redeem(identifier, secret, KEY, NOW)
