"""Warns of certificates that will soon stop replication."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

from blockrep.certificates.describe import CertificateInfo, describe, expires_soon
from blockrep.certificates.naming import Role
from blockrep.errors import ConfigurationError

__all__ = ["expiry_warnings", "renewal_advice"]


def expiry_warnings(paths: Iterable[Path], now: dt.datetime) -> list[str]:
    """Return a line for each certificate that expires within 14 days, or has done so.

    What cannot be read is not warned of: whoever uses it says why.
    """
    warnings = []
    for path in paths:
        try:
            info = describe(path)
        except ConfigurationError:
            continue
        if expires_soon(info, now):
            left = f"expires in {info.days_left(now)} days"
            when = "has expired" if info.not_after <= now else left
            warnings.append(
                f"{path}: the certificate {when} ({info.not_after:%Y-%m-%d %H:%M} UTC);"
                f" {renewal_advice(info, now)}"
            )
    return warnings


def renewal_advice(info: CertificateInfo, now: dt.datetime) -> str:
    """Return how this certificate is renewed: one of a client can ask for it until it expires."""
    if info.is_authority:
        return "a new authority and new certificates are needed: certs/README.md, A lost key"
    name = info.names[0] if info.names else "NAME"
    there = f"blockrep certs renew {name} where the authority is, and copy it here"
    if Role.SERVER in info.roles:
        there += "; then reload the server"
    if Role.CLIENT in info.roles and info.not_after > now:
        return f"renew it: blockrep peer renew HOST, or {there}"
    return f"renew it: {there}"
