"""``blockrep verify``: compares the newest common snapshot."""

from __future__ import annotations

import argparse
import sys

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import sink_for
from blockrep.cli.running import run_operation, settings_of, source_of, target_of
from blockrep.client import operations
from blockrep.errors import VerificationFailedError
from blockrep.replication.sender import PushOptions, Verification

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
    different = verification.different
    if not different:
        return 0
    if not options.json:
        for extent in different[:_SHOWN_EXTENTS]:
            print(
                f"differs: offset {extent.offset_bytes}, length {extent.length_bytes}",
                file=sys.stderr,
            )
        if len(different) > _SHOWN_EXTENTS:
            print(f"differs: {len(different) - _SHOWN_EXTENTS} more extents", file=sys.stderr)
    total = sum(extent.length_bytes for extent in different)
    sequence = verification.snapshot.sequence
    raise VerificationFailedError(
        f"{total} bytes differ in {len(different)} extents (snapshot #{sequence})",
        where=options.target,
        safe="nothing was changed",
        next_step="suspect the disks of both hosts; push --adopt repairs the replica",
    )
