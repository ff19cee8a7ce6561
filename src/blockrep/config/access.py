"""Who may do what: identity -> target -> operations.

A client asks for a name; the rules say which volume of this host that name stands for. Whatever no
rule allows is answered by None, whether it exists or not. With no rules at all, holding a client
certificate of the private authority is the permission (see ``docs/configuration.md`` for why); an
identity that a forced command of SSH gives needs a rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from blockrep.errors import ConfigurationError
from blockrep.model.names import VolumeName, parse_volume

__all__ = [
    "DEFAULT_KEEP",
    "DEFAULT_OPERATIONS",
    "DEFAULT_PULL_TARGETS",
    "OPERATIONS",
    "AccessPolicy",
    "Grant",
    "TargetRule",
    "check_pattern",
]

OPERATIONS: Final = ("push", "verify", "list", "pull", "prune")
DEFAULT_OPERATIONS: Final = ("push", "verify", "list")
DEFAULT_KEEP: Final = 3
DEFAULT_PULL_TARGETS: Final = 2

# What blockrep keeps for itself: snapshots and staging volumes of LVM, the folder beside images.
# Whoever could name them would have another client's snapshots, or write to a good one.
_OWN_LV: Final = re.compile(r"br_[gst]_.*")
_OWN_FOLDER: Final = ".blockrep"


@dataclass(frozen=True, slots=True)
class TargetRule:
    """What one client may do with the targets that a pattern names.

    Attributes:
        name: what the client asks for; one ``*`` stands for one part of it, without slashes.
        volume: the volume of this host; its ``*`` becomes what the other stood for.
        operations: out of ``OPERATIONS``.
        create: it may come to exist.
        adopt: it may be taken over although it is not ours.
        keep: good snapshots that are retained.
        keep_min: good snapshots that a client's prune leaves, 1 to ``keep``.
        quota_bytes: largest size of the volume that is pushed; 0: any.
        rate_bytes_per_second: received by all sessions under this rule together; 0: any.
        max_pull_targets: snapshots of one volume are held for so many targets of the client.
    """

    name: str
    volume: str
    operations: frozenset[str] = frozenset(DEFAULT_OPERATIONS)
    create: bool = True
    adopt: bool = False
    keep: int = DEFAULT_KEEP
    keep_min: int = 1
    quota_bytes: int = 0
    rate_bytes_per_second: int = 0
    max_pull_targets: int = DEFAULT_PULL_TARGETS


@dataclass(frozen=True, slots=True)
class Grant:
    """What is allowed.

    Attributes:
        volume: the volume of this host.
        create: it may come to exist.
        adopt: it may be taken over although it is not ours.
        keep: good snapshots that are retained.
        keep_min: good snapshots that a client's prune leaves.
        quota_bytes: largest size of the volume that is pushed; 0: any.
        rate_bytes_per_second: received by all sessions under ``rule`` together; 0: any.
        max_pull_targets: snapshots of the volume are held for so many targets of the client.
        rule: name of the rule that allows it; empty: there are no rules.
        beneath: for a path, the folder that it must not leave through symbolic links; else None.
    """

    volume: VolumeName
    create: bool
    adopt: bool
    keep: int = DEFAULT_KEEP
    keep_min: int = 1
    quota_bytes: int = 0
    rate_bytes_per_second: int = 0
    max_pull_targets: int = DEFAULT_PULL_TARGETS
    rule: str = ""
    beneath: Path | None = None


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules of a server.

    Attributes:
        clients: rules by identity; an identity that is not there may do nothing. None: there are no
            rules.
        image_directory: the folder of image files that clients may name without a rule of their
            own; None: there is none.
    """

    clients: Mapping[str, tuple[TargetRule, ...]] | None
    image_directory: Path | None

    def authorize(self, identity: str, requested: str, operation: str) -> Grant | None:
        """Return what ``identity`` may do with what it calls ``requested``; None: not this.

        Touches nothing on disk.
        """
        if not identity or operation not in OPERATIONS:
            return None
        if self.clients is None:
            return self._authorize_anyone(requested) if operation in DEFAULT_OPERATIONS else None
        for rule in self.clients.get(identity, ()):
            if operation in rule.operations and (grant := _apply(rule, requested)) is not None:
                return grant
        return None

    def knows(self, identity: str) -> bool:
        """Whether the identity may do anything at all."""
        return self.clients is None or bool(self.clients.get(identity))

    def check(self) -> None:
        """Check what a server needs before it listens.

        Raises:
            ConfigurationError: the image directory is not there.
        """
        if self.image_directory is not None and not self.image_directory.is_dir():
            raise ConfigurationError(
                "the image directory does not exist",
                where=str(self.image_directory),
                next_step="create it, or correct image_directory in [server]",
            )

    def permit(self, identity: str, requested: str, operation: str) -> Grant | None:
        """Do as :meth:`authorize`, and look where a path leads: not out of its folder."""
        grant = self.authorize(identity, requested, operation)
        if (
            grant is None
            or grant.beneath is None
            or _stays_beneath(Path(grant.volume.path), grant.beneath)
        ):
            return grant
        return None

    def _authorize_anyone(self, requested: str) -> Grant | None:
        volume = _parse(requested)
        if volume is None:
            return None
        if volume.is_lvm:
            return Grant(volume, create=True, adopt=True)
        if self.image_directory is None:
            return None
        # A path that does not start with / counts from the folder: "replica:./vm.img" needs no
        # knowledge of it.
        path = self.image_directory / volume.path
        if self.image_directory not in path.parents:
            return None
        return Grant(
            VolumeName(path=str(path)), create=True, adopt=True, beneath=self.image_directory
        )


def check_pattern(text: str) -> str:
    """Return the name or volume of a rule, if it is one.

    Raises:
        ValueError: it is not; says why.
    """
    if text.count("*") > 1:
        msg = f"{text[:80]!r} has more than one *"
        raise ValueError(msg)
    try:
        volume = parse_volume(text.replace("*", "x"))
    except ValueError as error:
        # What a client may type, a rule may not: there is no folder that it would count from.
        msg = str(error).replace("a path that starts with / or .", "an absolute path")
        raise ValueError(msg) from error
    if not volume.is_lvm and (".." in PurePosixPath(text).parts or not text.startswith("/")):
        msg = f"{text[:80]!r} is not an absolute path without .."
        raise ValueError(msg)
    if _is_own(volume):
        msg = f"{text[:80]!r} is what blockrep keeps for itself"
        raise ValueError(msg)
    if not volume.is_lvm and "*" in PurePosixPath(text).parent.as_posix():
        msg = f"{text[:80]!r} has a * that is not in its last part"
        raise ValueError(msg)
    return text


def _apply(rule: TargetRule, requested: str) -> Grant | None:
    before, star, after = rule.name.partition("*")
    match = re.fullmatch(
        f"{re.escape(before)}([^/]+){re.escape(after)}" if star else re.escape(rule.name), requested
    )
    if match is None:
        return None
    volume = _parse(rule.volume.replace("*", match[1]) if star else rule.volume)
    if volume is None:
        return None
    beneath = None if volume.is_lvm else Path(rule.volume).parent
    if beneath is not None and Path(volume.path).parent != beneath:
        return None  # "." is the folder itself
    return Grant(
        volume,
        rule.create,
        rule.adopt,
        rule.keep,
        rule.keep_min,
        rule.quota_bytes,
        rule.rate_bytes_per_second,
        rule.max_pull_targets,
        rule.name,
        beneath,
    )


def _parse(text: str) -> VolumeName | None:
    """Parse a volume; a path with ``..`` is none, nor is what blockrep keeps for itself."""
    try:
        volume = parse_volume(text)
    except ValueError:
        return None
    return None if ".." in PurePosixPath(volume.path).parts or _is_own(volume) else volume


def _is_own(volume: VolumeName) -> bool:
    if volume.is_lvm:
        return _OWN_LV.fullmatch(volume.lv) is not None
    return _OWN_FOLDER in PurePosixPath(volume.path).parts


def _stays_beneath(path: Path, folder: Path) -> bool:
    """Whether the path is in the folder once the symbolic links of both are followed."""
    try:
        if path.is_symlink():
            return False
        parent = os.path.realpath(path.parent, strict=True)
        real = os.path.realpath(folder, strict=True)
    except OSError:
        return False
    return os.path.commonpath([parent, real]) == real
