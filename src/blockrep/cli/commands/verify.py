"""``blockrep verify``: compares the newest common snapshot."""

from __future__ import annotations

import argparse
import sys

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import sink_for
from blockrep.cli.running import run_operation, settings_of, source_of, target_of
from blockrep.client import operations
from blockrep.errors import VerificationFailedError
from blockrep.replication.push import PushOptions, Verification

__all__ = ["run", "verdict"]

_SHOWN_EXTENTS = 20


def run(options: argparse.Namespace) -> int:
    """Compare; raise VerificationFailedError if anything differs."""
    source = source_of(options)
    settings = settings_of(options)
    target = target_of(options.target, settings)
    sink = sink_for(str(source), as_json=options.json, quiet=options.quiet)
    try:
        with client_graph(settings) as context:
            push_options = PushOptions(str(target), str(target.volume))
            result = run_operation(operations.verify(context, source, target, push_options, sink))
    finally:
        sink.finish()
    return verdict(result, options)


def verdict(verification: Verification, options: argparse.Namespace) -> int:
    """Return 0 if both ends are equal; else show where they differ.

    Raises:
        VerificationFailedError: they differ.
    """
    if not verification.different_bytes:
        return 0
    if not options.json:
        shown = verification.different[:_SHOWN_EXTENTS]
        for extent in shown:
            print(
                f"differs: offset {extent.offset_bytes}, length {extent.length_bytes}",
                file=sys.stderr,
            )
        if verification.different_count > len(shown):
            more = verification.different_count - len(shown)
            print(f"differs: {more} more extents", file=sys.stderr)
    raise VerificationFailedError(
        f"{verification.different_bytes} bytes differ in {verification.different_count} extents "
        f"of snapshot #{verification.snapshot.sequence}",
        where=options.target,
        safe="nothing was changed",
        next_step="suspect the disks of both hosts; push --adopt repairs the replica",
    )
