"""Checks of this host that have nothing to do with volumes: folders, certificates, the clock."""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockrep.certificates.describe import describe, expires_soon
from blockrep.certificates.expiry import renewal_advice
from blockrep.certificates.naming import Role
from blockrep.config.identity import find_files
from blockrep.config.settings import Settings
from blockrep.errors import BlockrepError, ConfigurationError, UnsupportedHostError
from blockrep.model.findings import Finding, Level

__all__ = ["check_certificates", "check_clock", "check_directories"]

#: No host on which this runs is older than what it runs.
_RELEASED: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def check_directories(settings: Settings) -> Iterator[Finding]:
    """Yield whether state and locks can be kept, and by nobody else."""
    storage = settings.storage
    for path, key in (
        (storage.state_directory, "state_directory"),
        (storage.runtime_directory, "runtime_directory"),
    ):
        existing = next(one for one in (path, *path.parents) if one.exists())
        mode = existing.stat().st_mode
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(
                Level.ERROR,
                str(path),
                "cannot be written to by this user",
                f"run as root, or set storage.{key}",
                UnsupportedHostError.exit_code,
            )
        elif existing == path and mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Finding(
                Level.ERROR,
                str(path),
                "can be written to by other users",
                f"chmod go-w {path}",
                ConfigurationError.exit_code,
            )
        else:
            yield Finding(Level.OK, str(path), "can be written to")


def check_certificates(settings: Settings, host_name: str, now: dt.datetime) -> Iterator[Finding]:
    """Yield what is wrong with the certificates of this host, for both of its roles."""
    tls = settings.tls
    if tls.certificate is None and not list(tls.directory.glob("*.pem")):
        what = "there are no certificates: ssh:// targets only"
        yield Finding(Level.OK, str(tls.directory), what)
        return
    paths: dict[Path, None] = {}
    problems: dict[Finding, None] = {}
    for role in (Role.CLIENT, Role.SERVER):
        try:
            files = find_files(tls, role, host_name)
            files.check()
            paths |= dict.fromkeys((files.ca, files.certificate))
        except BlockrepError as error:
            problems[Finding.of_error(error)] = None
    yield from problems
    for path in paths:
        yield _check_certificate(path, now)


def _check_certificate(path: Path, now: dt.datetime) -> Finding:
    try:
        info = describe(path)
    except BlockrepError as error:
        return Finding.of_error(error)
    exit_code = ConfigurationError.exit_code
    renew = renewal_advice(info, now)
    until = f"{info.not_after:%Y-%m-%d}"
    if info.not_after <= now:
        return Finding(Level.ERROR, str(path), f"expired on {until}", renew, exit_code)
    if info.not_before > now:
        what = f"is not valid before {info.not_before:%Y-%m-%d %H:%M} UTC"
        return Finding(Level.ERROR, str(path), what, "correct the clock: timedatectl", exit_code)
    if expires_soon(info, now):
        what = f"expires in {info.days_left(now)} days"
        return Finding(Level.WARNING, str(path), what, renew)
    return Finding(Level.OK, str(path), f"is valid until {until}")


def check_clock(now: dt.datetime) -> Finding:
    """Return whether this host's clock can be right."""
    shown = f"it is {now:%Y-%m-%d %H:%M} UTC here"
    if now < _RELEASED:
        exit_code = UnsupportedHostError.exit_code
        return Finding(Level.ERROR, "clock", shown, "set the clock: timedatectl", exit_code)
    return Finding(Level.OK, "clock", shown)
