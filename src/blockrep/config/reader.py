"""Reads one TOML table key by key; complaints name the file, the key and what is accepted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from blockrep.config.values import (
    DURATION_FORMS,
    SIZE_FORMS,
    Address,
    LocalAddress,
    parse_duration,
    parse_listening_address,
    parse_size,
)
from blockrep.errors import ConfigurationError

__all__ = ["Table"]

#: What Linux takes: NAME_MAX, and PATH_MAX less a name that is put below a folder.
_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 3840
_SHOWN: Final = 200


class Table:
    """One table: ask for every known key, then call :meth:`finish` about the others.

    Args:
        values: what the TOML parser made of it.
        key: its own dotted key, empty for the whole file.
        file: the file it is from.
    """

    def __init__(self, values: Mapping[str, Any], key: str, file: Path) -> None:
        self._values = values
        self._key = key
        self._file = file
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str) -> str:
        """Return a string."""
        value: str = self._take(name, default, str, "a string")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value: bool = self._take(name, default, bool, "true or false")
        return value

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a number within bounds."""
        accepted = f"a whole number from {lowest} to {highest}"
        value: int = self._take(name, default, int, accepted)
        if not lowest <= value <= highest:
            self.reject(name, accepted)
        return value

    def size(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a size in bytes, given as a number or as text like ``64MiB``."""
        value = self._measure(name, default, parse_size, f"a size: {SIZE_FORMS}")
        if not lowest <= value <= highest:
            self.reject(name, f"{lowest} to {highest} bytes")
        return int(value)

    def seconds(self, name: str, default: float, lowest: float, highest: float) -> float:
        """Return a duration in seconds, given as a number or as text like ``30s``."""
        value = self._measure(name, default, parse_duration, f"a duration: {DURATION_FORMS}")
        if not lowest <= value <= highest:
            self.reject(name, f"{lowest:g} to {highest:g} seconds")
        return float(value)

    def path(self, name: str, default: Path | None) -> Path | None:
        """Return a path; one that is relative counts from the folder of the configuration file."""
        text = self._take(name, None, str, "a path")
        if text is None:
            return default
        if not text or "\0" in text:
            self.reject(name, "a path")
        try:
            path = self._file.parent / Path(text).expanduser()
            encoded = os.fsencode(path)
        except (RuntimeError, UnicodeError):
            self.reject(name, "a path; ~NAME is the home of a user of this host")
        if len(encoded) > _MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > _MAX_NAME_BYTES:
            self.reject(
                name, f"a path of {_MAX_PATH_BYTES} bytes at most, {_MAX_NAME_BYTES} in each name"
            )
        return path

    def addresses(
        self, name: str, default: Sequence[Address | LocalAddress]
    ) -> tuple[Address | LocalAddress, ...]:
        """Return addresses to listen on, given as one string or a list of them."""
        value = self._take(name, None, (str, list), "HOST:PORT, unix:/PATH, or a list of them")
        if value is None:
            return tuple(default)
        return tuple(
            self._parse(name, item, parse_listening_address)
            for item in ([value] if isinstance(value, str) else value)
        )

    def required_text(self, name: str) -> str:
        """Return a string that must be there and not be empty."""
        text = self.text(name, "")
        if not text:
            self.reject(
                name,
                "a string; it cannot be left out"
                if name not in self
                else "a string that is not empty",
            )
        return text

    def parsed(self, name: str, parse: Callable[[str], Any]) -> Any:
        """Return what ``parse`` makes of a required string; its ValueError is the complaint."""
        return self._parse(name, self.required_text(name), parse)

    def choices(self, name: str, default: Iterable[str], accepted: Sequence[str]) -> frozenset[str]:
        """Return a set of words, each out of those accepted."""
        values = self._take(name, list(default), list, "a list of strings")
        for value in values:
            if value not in accepted:
                self.reject(
                    name, "a list of " + ", ".join(accepted) + _did_you_mean(str(value), accepted)
                )
        return frozenset(values)

    def table(self, name: str) -> Table:
        """Return a table below this one; an empty one if it is not there."""
        return Table(self._take(name, {}, dict, "a table"), self._dotted(name), self._file)

    def tables(self, name: str) -> dict[str, Table]:
        """Return the tables below ``name`` by their own names."""
        found = self._take(name, {}, dict, f"tables, each as [{name}.NAME]")
        for key, values in found.items():
            if not isinstance(values, dict):
                self._fail(f"{self._dotted(name)}.{_quoted(key)}", f"a table, as [{name}.NAME]")
        return {
            key: Table(values, f"{self._dotted(name)}.{_quoted(key)}", self._file)
            for key, values in found.items()
        }

    def list_of_tables(self, name: str) -> list[Table]:
        """Return a list of tables: ``name = [{ ... }, { ... }]`` or ``[[name]]``."""
        accepted = "a list of tables: [{ key = value, ... }, ...]"
        found = self._take(name, [], list, accepted)
        if not all(isinstance(values, dict) for values in found):
            self.reject(name, accepted)
        return [
            Table(values, f"{self._dotted(name)}[{number}]", self._file)
            for number, values in enumerate(found)
        ]

    def finish(self) -> None:
        """Complain about keys that nobody asked for.

        Raises:
            ConfigurationError: there is one.
        """
        for name in self._values:
            if name not in self._known:
                self._fail(
                    self._dotted(name),
                    ", ".join(self._known) + _did_you_mean(name, self._known),
                    what="this key is not known",
                )

    def reject(self, name: str, accepted: str, what: str = "") -> NoReturn:
        """Complain about the value of a key.

        Raises:
            ConfigurationError: always.
        """
        value = self._values.get(name)
        self._fail(
            self._dotted(name),
            accepted,
            what or (f"{_shown(value)} is not accepted" if name in self else "it is missing"),
        )

    def _measure(
        self, name: str, default: float, parse: Callable[[str], float], accepted: str
    ) -> float:
        value: float | str = self._take(name, default, (int, float, str), accepted)
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError:
            self.reject(name, accepted)

    def _parse(self, name: str, value: object, parse: Callable[[str], Any]) -> Any:
        if not isinstance(value, str):
            self.reject(name, "a string")
        try:
            return parse(value)
        except ValueError as error:
            what, _, accepted = str(error).partition("; accepted: ")
            self._fail(self._dotted(name), accepted, what)

    def _take(self, name: str, default: Any, kind: type | tuple[type, ...], accepted: str) -> Any:
        self._known.append(name)
        if name not in self._values:
            return default
        value = self._values[name]
        # In Python, but not in TOML, true is a number.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.reject(name, accepted)
        return value

    def _dotted(self, name: str) -> str:
        return f"{self._key}.{_quoted(name)}" if self._key else _quoted(name)

    def _fail(self, key: str, accepted: str, what: str = "") -> NoReturn:
        raise ConfigurationError(
            what or "its value is not accepted",
            where=f"{self._file}: {key}",
            next_step=f"accepted: {accepted}" if accepted else None,
        )


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python makes no text of such; TOML has them as 0x...
        return "a number of too many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _quoted(name: str) -> str:
    plain = name and all(
        character.isascii() and (character.isalnum() or character in "-_") for character in name
    )
    return name if plain else repr(name)


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
