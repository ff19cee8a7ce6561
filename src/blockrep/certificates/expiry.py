"""Warns of certificates that will soon stop replication."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

from blockrep.certificates.describe import describe, expires_soon
from blockrep.errors import ConfigurationError

__all__ = ["expiry_warnings"]


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
                " renew it: blockrep peer renew, or blockrep certs renew where the authority is"
            )
    return warnings
