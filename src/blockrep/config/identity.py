"""Finds the certificate of this host where the configuration names none.

In the folder of certificates, in this order: ``host.pem``; the only certificate with a key; the one
named like this host; the only one that is meant for the role. So a host that was sent its two files
needs no configuration, nor does the host where the authority and the keys of all are.
"""

from __future__ import annotations

from pathlib import Path

from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_REVOCATIONS,
    HOST_CERTIFICATE,
    Role,
    is_there,
)
from blockrep.config.settings import TlsSettings
from blockrep.errors import ConfigurationError
from blockrep.transport.tls_files import TlsFiles

__all__ = ["certificate_with", "find_files"]


def find_files(tls: TlsSettings, role: Role, host_name: str) -> TlsFiles:
    """Return the files for a host that listens or dials.

    Whether they can be read is for :meth:`TlsFiles.check` to say.

    Args:
        tls: of the configuration.
        role: what the certificate is needed for.
        host_name: what this host calls itself, with or without a domain.

    Raises:
        ConfigurationError: there is no certificate, or several and nothing that tells which.
    """
    ca = tls.ca or tls.directory / AUTHORITY_CERTIFICATE
    crl = tls.crl
    if crl is None and is_there(found := ca.with_name(AUTHORITY_REVOCATIONS)):
        crl = found
    if tls.certificate is not None and tls.key is not None:
        return TlsFiles(ca, tls.certificate, tls.key, crl)
    certificate = _choose(tls.directory, role, host_name)
    return TlsFiles(ca, certificate, certificate.with_suffix(".key"), crl)


def certificate_with(tls: TlsSettings, host_name: str, coming: Path) -> Path:
    """Return the certificate that a client will take once it has got ``coming``.

    Raises:
        ConfigurationError: there would be several, and nothing that tells which.
    """
    if tls.certificate is not None and tls.key is not None:
        return tls.certificate
    return _choose(tls.directory, Role.CLIENT, host_name, coming)


def _choose(directory: Path, role: Role, host_name: str, coming: Path | None = None) -> Path:
    candidates = [
        path
        for path in sorted(directory.glob("*.pem"))
        if path.name != AUTHORITY_CERTIFICATE and path.with_suffix(".key").exists()
    ]
    if coming is not None and coming not in candidates:
        candidates.append(coming)
    own = directory / HOST_CERTIFICATE
    if own in candidates:
        return own
    if not candidates:
        raise ConfigurationError(
            "there is no certificate of this host with its key",
            where=str(directory),
            next_step=f"make one with: blockrep certs issue NAME --{role.value}, "
            "or copy ca.pem, NAME.pem and NAME.key here",
        )
    if len(candidates) == 1:
        return candidates[0]
    for name in (host_name, host_name.partition(".")[0]):
        if (named := directory / f"{name.lower()}.pem") in candidates:
            return named
    return _choose_by_role(directory, candidates, role, coming)


def _choose_by_role(
    directory: Path, candidates: list[Path], role: Role, coming: Path | None
) -> Path:
    # Loaded only here: cryptography takes longer to load than a small push has to wait.
    from blockrep.certificates.describe import describe  # noqa: PLC0415

    fitting = [path for path in candidates if path == coming or role in describe(path).roles]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(path.name for path in fitting or candidates)
    raise ConfigurationError(
        f"which certificate is this host's? There are {names}",
        where=str(directory),
        next_step="name its files host.pem and host.key, or set certificate and key in [tls]",
    )
