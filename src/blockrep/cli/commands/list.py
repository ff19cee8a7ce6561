"""``blockrep list``: snapshots of a local volume, of all, or of a replica at a target."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterable

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import format_age, format_bytes, sink_for
from blockrep.cli.running import run_operation, settings_of, target_of
from blockrep.client import operations
from blockrep.config.settings import Settings
from blockrep.model.names import VolumeName, parse_volume
from blockrep.model.snapshots import Snapshot

__all__ = ["run", "table"]


def run(options: argparse.Namespace) -> int:
    """List."""
    settings = settings_of(options)
    for title, snapshots in _listings(options, settings):
        if options.json:
            for one in snapshots:
                print(json.dumps({"event": "snapshot", "volume": title, **dataclasses.asdict(one)}))
        elif not options.quiet:
            print(title)
            for line in table(snapshots, time.time()):
                print(f"  {line}")
    return 0


def _listings(
    options: argparse.Namespace, settings: Settings
) -> Iterable[tuple[str, list[Snapshot]]]:
    if options.volume is None:
        from blockrep.storage.lvm.listing import list_host  # noqa: PLC0415 - only LVM hosts

        yield from list_host(settings.storage)
        return
    try:
        volume = parse_volume(options.volume)
    except ValueError:
        target = target_of(options.volume, settings)
        sink = sink_for(options.volume, as_json=False, quiet=True)
        with client_graph(settings) as context:
            replica = run_operation(operations.list_remote(context, target, sink))
        if not (replica.exists or options.json or options.quiet):
            print(f"{target}: there is no replica of that name yet")
            return
        yield str(target), list(replica.snapshots)
    else:
        with client_graph(settings) as context:
            snapshots = run_operation(operations.list_source(context, volume))
        goods = _goods_of(volume, settings)
        if snapshots or not goods:
            yield str(volume), snapshots
        if goods:
            yield f"{volume} (replica)", goods


def _goods_of(volume: VolumeName, settings: Settings) -> list[Snapshot]:
    """Return the good snapshots of a volume that is a replica here, as they are recorded.

    To inspect it as a target would finish what a crash left, or disturb a push under way.
    """
    if volume.is_lvm:
        from blockrep.storage.lvm.listing import list_host  # noqa: PLC0415 - only LVM hosts

        return dict(list_host(settings.storage)).get(f"{volume} (replica)", [])
    from blockrep.storage.image.catalogue import Catalogue  # noqa: PLC0415 - where needed
    from blockrep.storage.image.sidecar import ImageFile  # noqa: PLC0415

    return [one.snapshot for one in Catalogue(ImageFile(volume, "target")).goods()]


def table(snapshots: list[Snapshot], now_seconds: float) -> list[str]:
    """Return one line for each snapshot, newest first, under a heading.

    BASE is the one before it of its lineage, if that is here, too: what an incremental push of it
    started from. A source's snapshots are told with what they are held for.
    """
    if not snapshots:
        return ["no snapshots"]
    with_target = any(one.target for one in snapshots)
    by_place = {(one.lineage, one.target, one.sequence): one for one in snapshots}
    rows = [("#", "ID", "BASE", "SIZE", "ALLOCATED", "AGE", "STATE", "NAME", "TARGET")]
    for one in sorted(snapshots, key=lambda one: one.sequence, reverse=True):
        base = by_place.get((one.lineage, one.target, one.sequence - 1))
        allocated = format_bytes(one.allocated_bytes) if one.allocated_bytes >= 0 else "-"
        rows.append(
            (
                str(one.sequence),
                one.id[:8],
                base.id[:8] if base else "-",
                format_bytes(one.size_bytes),
                allocated,
                format_age(now_seconds - one.created_seconds),
                "good" if one.committed else "pending",
                one.name or "-",
                one.target or "-",
            )
        )
    columns = len(rows[0]) if with_target else len(rows[0]) - 1
    widths = [max(len(row[column]) for row in rows) for column in range(columns)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
