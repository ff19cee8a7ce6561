"""``blockrep prune``: drops the oldest good snapshots of a replica."""

from __future__ import annotations

import argparse
import json

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import sink_for
from blockrep.cli.running import run_operation, settings_of, target_of
from blockrep.client import operations
from blockrep.errors import UsageError
from blockrep.protocol.messages import Pruned

__all__ = ["run", "show"]


def run(options: argparse.Namespace) -> int:
    """Prune."""
    if options.keep < 1:
        raise UsageError("at least 1 snapshot is kept", where=f"--keep {options.keep}")
    settings = settings_of(options)
    target = target_of(options.target, settings)
    sink = sink_for(options.target, as_json=options.json, quiet=True)
    with client_graph(settings) as context:
        pruned = run_operation(operations.prune_remote(context, target, options.keep, sink))
    show(pruned, str(target), options)
    return 0


def show(pruned: Pruned, target: str, options: argparse.Namespace) -> None:
    """Tell what was dropped."""
    if options.json:
        counts = {"pruned_count": pruned.pruned_count, "kept_count": pruned.kept_count}
        print(json.dumps({"event": "pruned", "target": target, **counts}))
    elif not options.quiet:
        noun = "snapshot" if pruned.kept_count == 1 else "snapshots"
        print(f"{target}: dropped {pruned.pruned_count}, kept {pruned.kept_count} {noun}")
