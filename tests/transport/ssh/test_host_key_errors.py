"""A refused host key is told with its fingerprint, and never with a shortcut around comparing."""

from __future__ import annotations

import pytest

from blockrep.transport.ssh.host_key_errors import host_key_error


@pytest.mark.parametrize("another_is_known", [False, True])
def test_compare_first_then_the_remedy(*, another_is_known: bool) -> None:
    error = host_key_error(
        "replica", "ssh-ed25519 SHA256:x", "run: this", another_is_known=another_is_known
    )
    before, comparing, after = str(error).partition("compare the fingerprint")
    assert "SHA256:x is offered" in before
    assert comparing
    assert after.endswith("if it is right, run: this")
    assert ("somebody is in between" in before) is another_is_known
    assert error.exit_code == 3


def test_without_a_fingerprint() -> None:
    error = host_key_error("replica", "", "run: this", another_is_known=False)
    assert "offered" not in str(error)
