"""What authorize prints can be appended to the two files, and gives what was asked for, no more."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blockrep.cli.main import main
from blockrep.config.access import AccessPolicy
from blockrep.config.load import load_settings
from blockrep.config.ssh_keys import read_public_key

HOSTILE_TARGETS = [
    "", "vg", "@tag", "-rf", "../x", "/a/../b", "*/*", "vg/a\n", 'vg/a"', "vg/a=", "=vg/a",
    "vg/*=vg/a", "vg/a=vg/*", "vg/a=../b", "vg/a=b", "/a/*/b",
]  # fmt: skip


@pytest.fixture
def key(tmp_path: Path) -> Path:
    public = Ed25519PrivateKey.generate().public_key()
    path = tmp_path / "id.pub"
    path.write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" me@origin\n")
    return path


def policy_of(text: str, tmp_path: Path) -> AccessPolicy:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load_settings(file, {}, 0).access


def test_the_line_goes_to_output_and_the_rules_beside_it(
    key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["authorize", "alpha", "--target", "vg/a", "--key", str(key)]) == 0
    output = capsys.readouterr()
    (line,) = output.out.splitlines()
    fingerprint = read_public_key(key).fingerprint
    assert line == (
        f'command="blockrep-server --stdio --as alpha --key-fingerprint {fingerprint}",restrict'
        f" {key.read_text().strip()}"
    )
    policy = policy_of(output.err, tmp_path)
    for operation in ("push", "verify", "list"):
        assert policy.authorize("alpha", "vg/a", operation) is not None
    for asked in (("alpha", "vg/a", "prune"), ("alpha", "vg/b", "push"), ("beta", "vg/a", "list")):
        assert policy.authorize(*asked) is None


def test_the_rules_alone_are_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--target", "mine/*=vg/alpha-*", "--target", '/b/a "x" \\ ä=/srv/a=b', "--toml"]
    words += ["--operations", "prune", "--operations", "list,prune"]
    assert main(["authorize", "a.example", *words]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert list(tomllib.loads(output.out)["clients"]) == ["a.example"]
    assert output.out.count('operations = ["prune", "list"]') == 2
    policy = policy_of(output.out, tmp_path)
    for asked, volume in (("mine/x", "vg/alpha-x"), ('/b/a "x" \\ ä', "/srv/a=b")):
        for operation in ("list", "prune"):
            grant = policy.authorize("a.example", asked, operation)
            assert grant is not None
            assert str(grant.volume) == volume
        assert policy.authorize("a.example", asked, "push") is None


@pytest.mark.parametrize("target", HOSTILE_TARGETS)
def test_a_target_that_is_none_is_a_usage_error(
    target: str, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["authorize", "alpha", f"--target={target}", "--key", str(key)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["alpha"], 2, "--target"),
        (["alpha", "--target", "vg/a"], 2, "--key is missing"),
        (["alpha", "--target", "vg/a", "--operations", "push,format", "--toml"], 2, "accepted:"),
        (["alpha", "--target", "vg/a", "--operations", "", "--toml"], 2, "accepted:"),
        (["alpha;id", "--target", "vg/a", "--toml"], 3, "host name"),
        (['a"', "--target", "vg/a", "--toml"], 3, "host name"),
        (["alpha", "--target", "vg/a", "--key", "/nowhere.pub"], 3, "/nowhere.pub"),
    ],
)
def test_what_cannot_be_authorized_prints_nothing(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["authorize", *words]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err
