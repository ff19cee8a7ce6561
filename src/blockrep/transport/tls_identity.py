"""Who a client is: the one name in its certificate, if it can be a name."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import Any, Final

from blockrep.errors import ConfigurationError
from blockrep.transport.interface import LOCAL_IDENTITY, PeerInfo
from blockrep.transport.tls_errors import (
    certificate_names,
    presented_certificate,
    presented_encoded,
)

__all__ = ["client_identity", "presented_peer"]

_MAX_BYTES: Final = 255  # WELCOME holds no more


def client_identity(tls: ssl.SSLSocket, address: str) -> str:
    """Return the client's one name; with several, a choice would decide what it may do.

    Raises:
        ConfigurationError: there is not one, or it cannot be an identity.
    """
    names = _names(tls.getpeercert() or {})
    next_step = "issue it with: blockrep certs issue NAME --client"
    if len(names) != 1:
        found = f"{len(names)} names ({', '.join(names)})" if names else "no name"
        what = f"the certificate of the client has {found} instead of one"
        raise ConfigurationError(what, where=address, next_step=next_step)
    (name,) = names
    if not _is_identity(name):
        what = f"the certificate of the client has a name that is none: {name[:80]!a}"
        raise ConfigurationError(what, where=address, next_step=next_step)
    return name


def presented_peer(tls: ssl.SSLSocket, address: str) -> PeerInfo:
    """Describe the peer of a handshake that failed by what it showed; nobody proved any of it."""
    encoded = presented_encoded(tls)
    names = _names(presented_certificate(tls) or {})
    identity = names[0] if len(names) == 1 and _is_identity(names[0]) else ""
    return PeerInfo(identity, address, hashlib.sha256(encoded).hexdigest() if encoded else "")


def _names(certificate: Mapping[str, Any]) -> list[str]:
    return certificate_names(certificate, ("DNS", "URI"))


def _is_identity(name: str) -> bool:
    """Whether it is printable, without spaces, of bounded length, and not that of a local user."""
    return (
        bool(name)
        and name.isprintable()
        and " " not in name
        and len(name.encode()) <= _MAX_BYTES
        and not name.startswith(LOCAL_IDENTITY)
    )
