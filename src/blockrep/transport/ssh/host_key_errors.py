"""What is said about a host whose key nobody vouches for, whichever carrier found it."""

from __future__ import annotations

from blockrep.errors import ConfigurationError

__all__ = ["host_key_error"]

_COMPARE = "compare the fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub"


def host_key_error(
    where: str, offered: str, remedy: str, *, another_is_known: bool
) -> ConfigurationError:
    """Return the refusal of a host key.

    Args:
        where: the host as the user calls it.
        offered: type and fingerprint of the key; empty: not known.
        remedy: what accepts this key, as words that follow a comma.
        another_is_known: the host has had another key.
    """
    shown = f" ({offered} is offered)" if offered else ""
    if another_is_known:
        return ConfigurationError(
            f"the host key is not the one that is known{shown}: the host was reinstalled, or"
            " somebody is in between",
            where=where,
            safe="nothing was sent",
            next_step=f"{_COMPARE} there); only if it is right, {remedy}",
        )
    return ConfigurationError(
        f"the host key is not known{shown}",
        where=where,
        safe="nothing was sent",
        next_step=f"{_COMPARE} there); if it is right, {remedy}",
    )
