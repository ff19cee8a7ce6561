"""``blockrep delta``: what a push would send, without asking the target."""

from __future__ import annotations

import argparse
import json

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import format_bytes
from blockrep.cli.running import run_operation, settings_of, source_of, target_of
from blockrep.client import operations
from blockrep.model.extents import Extent, ExtentKind, merge_adjacent
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Show extents and bytes."""
    source = source_of(options)
    settings = settings_of(options)
    target = str(target_of(options.to, settings)) if options.to else ""
    with client_graph(settings) as context:
        base, extents = run_operation(_collect(context, source, target))
    data_bytes = sum(one.length_bytes for one in extents if one.kind is ExtentKind.DATA)
    discard_bytes = sum(one.length_bytes for one in extents) - data_bytes
    if options.json:
        if options.extents:
            for one in extents:
                fields = {"offset_bytes": one.offset_bytes, "length_bytes": one.length_bytes}
                print(json.dumps({"event": "extent", "kind": one.kind.name.lower(), **fields}))
        summary = {
            "event": "delta",
            "base_id": base.id if base else "",
            "extent_count": len(extents),
            "data_bytes": data_bytes,
            "discard_bytes": discard_bytes,
        }
        print(json.dumps(summary))
    elif not options.quiet:
        since = f"since snapshot #{base.sequence} ({base.id[:8]})" if base else "everything"
        if target and not base:
            since = f"no snapshot is held for {target}: everything"
        print(f"{source}: {since}")
        if options.extents:
            for one in extents:
                print(f"  {one.kind.name.lower():7} {one.offset_bytes} +{one.length_bytes}")
        print(f"  send     {format_bytes(data_bytes)} at most")
        print(f"  discard  {format_bytes(discard_bytes)}")
        print(f"  extents  {len(extents)}")
    return 0


async def _collect(
    context: operations.ClientContext, source: VolumeName, target: str
) -> tuple[Snapshot | None, list[Extent]]:
    base, delta = await operations.preview_delta(context, source, target)
    return base, await context.blocking.run(lambda: list(merge_adjacent(delta)))
