"""Contexts demand what they must; files that are not what they should be are told by name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from blockrep.errors import ConfigurationError
from blockrep.transport.tls_context import client_context, server_context
from blockrep.transport.tls_files import TlsFiles
from transport.hosts import Hosts


def test_both_contexts_are_mutual_tls_1_3_with_one_authority(hosts: Hosts) -> None:
    for context in (client_context(hosts.client()), server_context(hosts.server())):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert not context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
        assert len(context.get_ca_certs()) == 1  # nothing of the system's store


def test_the_client_checks_host_names_and_the_server_gives_no_tickets(hosts: Hosts) -> None:
    client = client_context(hosts.client())
    assert client.check_hostname
    assert not client.hostname_checks_common_name
    assert server_context(hosts.server()).num_tickets == 0


def test_a_revocation_list_is_used_once_it_is_named(hosts: Hosts) -> None:
    files = hosts.server()
    crl = hosts.revocation_list()
    context = server_context(TlsFiles(files.ca, files.certificate, files.key, crl))
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


def test_files_that_are_not_what_they_should_be(hosts: Hosts, tmp_path: Path) -> None:
    files = hosts.server()
    text = tmp_path / "text"
    text.write_text("not PEM")
    text.chmod(0o600)
    cases = [
        (TlsFiles(text, files.certificate, files.key), "text: is not a certificate in PEM form"),
        (
            TlsFiles(files.certificate, files.certificate, files.key),
            "not the certificate of an auth",
        ),
        (TlsFiles(files.ca, text, files.key), "cannot be loaded"),
        (TlsFiles(files.ca, files.certificate, text), "cannot be loaded"),
        (TlsFiles(files.ca, files.certificate, hosts.client().key), r"is not the key of .*replica"),
        (TlsFiles(files.ca, files.certificate, files.key, text), "is not a revocation list"),
    ]
    for broken, complaint in cases:
        with pytest.raises(ConfigurationError, match=complaint):
            server_context(broken)


def test_an_encrypted_key_is_refused_instead_of_asking(hosts: Hosts, tmp_path: Path) -> None:
    files = hosts.server()
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.touch(0o600)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match=r"is encrypted: .*store the key unencrypted"):
        server_context(TlsFiles(files.ca, files.certificate, encrypted))
