"""The name of a certificate is an identity: one spelling, no surprises in file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.certificates.naming import certificate_path, check_name, is_there, key_path
from blockrep.errors import ConfigurationError


@pytest.mark.parametrize("name", ["a", "replica", "host-1", "replica.example.com", "9", "a" * 63])
def test_names(name: str) -> None:
    assert check_name(name) == name
    assert certificate_path(Path("/c"), name) == Path(f"/c/{name}.pem")
    assert key_path(Path("/c"), name) == Path(f"/c/{name}.key")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/b", "-a", "a-", "A", "a_b", "a b", "a\n", "é", "a..b", "a" * 65],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be the name .*; use a host name"):
        check_name(name)


@pytest.mark.parametrize("name", ["ca", "host"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(ConfigurationError, match="would be mistaken"):
        check_name(name)


def test_what_may_not_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "nothing")

    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ConfigurationError, match=r"cannot be looked at: Permission denied"):
        is_there(tmp_path)
