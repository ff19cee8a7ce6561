"""Opens a volume by its name; the only place that knows which kinds exist.

Kinds are imported when they are needed.
"""

from __future__ import annotations

from blockrep.model.names import VolumeName
from blockrep.storage.interface import SourceVolume, StorageSettings, TargetVolume

__all__ = ["open_source", "open_target"]


def open_source(name: VolumeName, settings: StorageSettings) -> SourceVolume:
    """Return the volume as a source. Nothing is touched before its first method is called."""
    if name.is_lvm:
        from blockrep.storage.lvm.source import LvmSource  # noqa: PLC0415 - start-up time

        return LvmSource(name, settings)
    from blockrep.storage.image.source import ImageSource  # noqa: PLC0415 - start-up time

    return ImageSource(name, settings)


def open_target(name: VolumeName, settings: StorageSettings) -> TargetVolume:
    """Return the volume as a target. Nothing is touched before its first method is called."""
    if name.is_lvm:
        from blockrep.storage.lvm.target import LvmTarget  # noqa: PLC0415 - start-up time

        return LvmTarget(name, settings)
    from blockrep.storage.image.target import ImageTarget  # noqa: PLC0415 - start-up time

    return ImageTarget(name, settings)
