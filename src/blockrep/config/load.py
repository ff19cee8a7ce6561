"""Finds and reads the configuration file."""

from __future__ import annotations

import pwd
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from blockrep.config.settings import (
    Directories,
    Settings,
    TlsSettings,
    read_settings,
    read_tls_settings,
)
from blockrep.errors import ConfigurationError

__all__ = ["default_directories", "load_settings", "load_tls_settings"]

_FILE_NAME: Final = "config.toml"
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_LONG_NUMBER: Final = re.compile(rb"(?<![\d_])\d(?:_?\d){4299,}")


def default_directories(environment: Mapping[str, str], user_id: int) -> Directories:
    """Return where things lie: under /etc, /var/lib and /run for root, by XDG for others.

    Raises:
        ConfigurationError: nothing says where this user is at home.
    """
    if user_id == 0:
        return Directories(Path("/etc/blockrep"), Path("/var/lib/blockrep"), Path("/run/blockrep"))
    home = _home(environment, user_id)
    state = _xdg(environment, "XDG_STATE_HOME") or home / ".local/state/blockrep"
    return Directories(
        _xdg(environment, "XDG_CONFIG_HOME") or home / ".config/blockrep",
        state,
        # Outside a login session there is none: what outlives a reboot then are unused lock files.
        _xdg(environment, "XDG_RUNTIME_DIR") or state / "run",
    )


def load_settings(file: Path | None, environment: Mapping[str, str], user_id: int) -> Settings:
    """Read the configuration.

    Args:
        file: given by the user: it must exist, and ``certs`` is looked for beside it; None: the
            default file, if there is one.
        environment: of the process.
        user_id: effective.

    Raises:
        ConfigurationError: it cannot be read, or holds a wrong key or value.
    """
    found, directories = _find(file, environment, user_id)
    return read_settings(_values(found, file), found, directories)


def load_tls_settings(
    file: Path | None, environment: Mapping[str, str], user_id: int
) -> TlsSettings:
    """Read ``[tls]`` alone, whatever else the file holds; arguments as :func:`load_settings`.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or that part of it is wrong.
    """
    found, directories = _find(file, environment, user_id)
    return read_tls_settings(_values(found, file), found, directories)


def _find(
    file: Path | None, environment: Mapping[str, str], user_id: int
) -> tuple[Path, Directories]:
    """Return the file, which need not exist, and where things lie then."""
    directories = default_directories(environment, user_id)
    if file is None:
        default = directories.configuration / _FILE_NAME
        return default.absolute(), directories
    if _is_there(file):
        directories = Directories(file.absolute().parent, directories.state, directories.runtime)
    return file.absolute(), directories


def _values(found: Path, given: Path | None) -> Mapping[str, object]:
    """Return what the file says; nothing, if it is the default one and does not exist."""
    return {} if given is None and not _is_there(found) else _parse(found)


def _is_there(file: Path) -> bool:
    """Tell whether there is something. Raises ConfigurationError."""
    try:
        return file.exists()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _parse(file: Path) -> Mapping[str, object]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigurationError("is too large for a configuration", where=str(file))
        return tomllib.loads(content.decode())
    except FileNotFoundError as error:
        raise ConfigurationError(
            "there is no such file", where=str(file), next_step="correct --config"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("is not UTF-8", where=str(file)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"is not TOML: {error}", where=str(file)) from error
    except ValueError as error:
        # Of Python's limit for integers: the parser says neither that nor where.
        before, *rest = _LONG_NUMBER.split(content, 1)
        line = f": line {len(before.splitlines())}" if rest else ""
        raise ConfigurationError("a number has too many digits", where=f"{file}{line}") from error
    except RecursionError as error:
        raise ConfigurationError("is nested too deeply", where=str(file)) from error


def _home(environment: Mapping[str, str], user_id: int) -> Path:
    if given := environment.get("HOME"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(user_id).pw_dir)
    except KeyError as error:
        raise ConfigurationError(
            f"user {user_id} has no entry that says where its home is", next_step="set HOME"
        ) from error


def _xdg(environment: Mapping[str, str], variable: str) -> Path | None:
    # A relative path is to be ignored (XDG Base Directory Specification).
    given = environment.get(variable, "")
    return Path(given) / "blockrep" if given.startswith("/") else None
