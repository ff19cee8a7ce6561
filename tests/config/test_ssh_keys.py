"""The line for authorized_keys lets one public key do one thing, or is not made at all."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from blockrep.config.ssh_keys import authorized_line, is_key_fingerprint, read_public_key
from blockrep.errors import ConfigurationError

# Always the same: what a test is called must not change from process to process.
PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


GOOD = public(PRIVATE)
ENCODED = GOOD.split()[1]


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "key.pub"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "key",
    [
        PRIVATE,
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "p256", "p384", "p521", "rsa"],
)
def test_public_keys_are_taken_as_they_are(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    text = public(key)
    assert str(read_public_key(written(tmp_path, f"{text}\n"))) == text
    with_comment = f"# of mine\n\n{text} root@origin, the old one\r\n"
    assert str(read_public_key(written(tmp_path, with_comment))).startswith(f"{text} root@origin,")


def test_a_key_on_a_security_token_is_one(tmp_path: Path) -> None:
    kind = "sk-ssh-ed25519@openssh.com"
    parts = (kind.encode(), bytes(32), b"ssh:")
    packed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    text = f"{kind} {base64.b64encode(packed).decode()}"
    assert str(read_public_key(written(tmp_path, text))) == text


def test_the_line_allows_one_command_and_nothing_else(tmp_path: Path) -> None:
    key = read_public_key(written(tmp_path, f"{GOOD} me@origin\n"))
    fingerprint = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
    assert authorized_line("alpha.example", key) == (
        f'command="blockrep-server --stdio --as alpha.example --key-fingerprint {fingerprint}"'
        f",restrict {GOOD} me@origin"
    )


def test_the_fingerprint_is_what_ssh_keygen_shows(tmp_path: Path) -> None:
    path = written(tmp_path, f"{GOOD} me@origin\n")
    argv = ["ssh-keygen", "-lf", str(path)]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[1]
    assert read_public_key(path).fingerprint == shown
    assert is_key_fingerprint(shown)


@pytest.mark.parametrize(
    "text",
    ["", "SHA256:", "MD5:" + "0" * 43, "SHA256:" + "A" * 42, "SHA256:" + "A" * 44,
     "SHA256:" + "A" * 42 + "\n", "SHA256:" + "A" * 42 + '"', "SHA256:" + "A" * 43 + "\n"],
)  # fmt: skip
def test_what_is_no_fingerprint(text: str) -> None:
    assert not is_key_fingerprint(text)


@pytest.mark.parametrize(
    "name",
    [
        "", "alpha beta", 'alpha"', "alpha'", "alpha;id", "alpha\n", "$(id)", "`id`", "-rf",
        "--as=root", "../x", "alpha,restrict", "alpha\\", "alpha\0", "x" * 65, "Alpha", "ca", "a/b",
        'a",no-restrict ssh-ed25519 AAAA',
    ],
)  # fmt: skip
def test_a_name_cannot_leave_its_quotes(name: str, tmp_path: Path) -> None:
    key = read_public_key(written(tmp_path, GOOD))
    with pytest.raises(ConfigurationError):
        authorized_line(name, key)


SMALL_RSA = public(rsa.generate_private_key(65537, 1024))
DSA = "ssh-dss AAAAB3NzaC1kc3M="
P256, P384 = (
    public(ec.generate_private_key(one)).split() for one in (ec.SECP256R1(), ec.SECP384R1())
)
ONE_MORE = base64.b64encode(base64.b64decode(ENCODED) + b"\0\0\0\1x").decode()


WRONG: list[tuple[str | bytes, str]] = [
    ("", "holds 0 keys"),
    ("# nothing\n\n", "holds 0 keys"),
    (f"{GOOD}\n{GOOD}\n", "holds 2 keys"),
    (f'command="sh" {GOOD}', "no type of key"),
    (f"no-pty,from=* {GOOD}", "no type of key"),
    (f"@cert-authority * {GOOD}", "no type of key"),
    ("ssh-ed25519-cert-v01@openssh.com AAAA", "no type of key"),
    (DSA, "no type of key"),
    ("ssh-ed25519", "empty"),
    ("ssh-ed25519 !!!!", "no base64"),
    (f"ssh-ed25519 {ENCODED[:-12]}", "cut off"),
    (f"ssh-ed25519 {ENCODED[:-4]}", "cut off"),
    (f"ssh-rsa {ENCODED}", "no ssh-rsa key"),
    (f"{P256[0]} {P384[1]}", f"no {P256[0]} key"),
    (f"ssh-ed25519 {ONE_MORE}", "no ssh-ed25519 key"),
    (f"ssh-ed25519 {ONE_MORE[:-4]}", "cut off"),
    (f"ssh-ed25519 {SMALL_RSA.split()[1]}", "no ssh-ed25519 key"),
    (SMALL_RSA, "RSA key of less than 2048 bits"),
    (f"{GOOD} a\x1b[2Jb", "cannot be printed"),
    (f"{GOOD} a\rb", "cannot be printed"),
    (f"{GOOD} a\0b", "cannot be printed"),
    (f"{GOOD} a\u2028b", "cannot be printed"),
    (b"\xff\xfe", "no UTF-8"),
    (GOOD + " " + "x" * 20_000, "too large"),
    (
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "is a private key",
    ),
    (
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "is a private key",
    ),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=range(len(WRONG)))  # keys are random
def test_what_is_not_one_public_key_is_refused(
    content: str | bytes, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_public_key(written(tmp_path, content))
    assert "public key" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_public_key(tmp_path / "none.pub")
