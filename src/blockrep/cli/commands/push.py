"""``blockrep push``: and its ``--dry-run``."""

from __future__ import annotations

import argparse
import dataclasses
import json

from blockrep.cli.commands.verify import verdict
from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import format_bytes, sink_for
from blockrep.cli.running import (
    compression_of,
    rate_of,
    retry_policy,
    run_operation,
    settings_of,
    source_of,
    target_of,
)
from blockrep.client import operations
from blockrep.client.retrying import Remaining, retrying
from blockrep.errors import NoSpaceError
from blockrep.model.lineage import Wish
from blockrep.replication.push import DryRun, PushOptions

__all__ = ["refuse_without_room", "run", "show_dry_run"]


def run(options: argparse.Namespace) -> int:
    """Push, or tell what a push would do."""
    source = source_of(options)
    settings = settings_of(options)
    target = target_of(options.target, settings)
    remaining = Remaining(Wish(full=options.full, adopt=options.adopt, shrink=options.shrink))
    push_options = PushOptions(
        target=str(target),
        volume=str(target.volume),
        wish=remaining.wish,
        bytes_per_second=rate_of(options.bwlimit),
        compression=compression_of(options),
        page_delta=options.page_delta,
    )
    sink = sink_for(str(source), as_json=options.json, quiet=options.quiet, profile=options.profile)
    try:
        with client_graph(settings) as context:
            if options.dry_run:
                plan = run_operation(
                    operations.dry_run(context, source, target, push_options, sink)
                )
                show_dry_run(plan, options)
                refuse_without_room(plan, str(target))
                return 0
            _, verification = run_operation(
                retrying(
                    lambda sink: operations.push(
                        context,
                        source,
                        target,
                        dataclasses.replace(push_options, wish=remaining.wish),
                        remaining.watched(sink),
                        verify_after=options.verify,
                    ),
                    retry_policy(settings) if options.retry else None,
                    sink,
                )
            )
    finally:
        sink.finish()
    return 0 if verification is None else verdict(verification, options)


def show_dry_run(plan: DryRun, options: argparse.Namespace) -> None:
    """Print what a push would do: a table for people, or one JSON object.

    With --quiet nothing: whether there is room is what the exit code says.
    """
    if options.json:
        fields = dataclasses.asdict(plan) | {"mode": plan.mode.value}
        print(json.dumps({"event": "dry_run", **fields}))
        return
    if options.quiet:
        return
    print(f"mode       {plan.mode.value}: {plan.reason}")
    if plan.data_bytes is not None and plan.discard_bytes is not None:
        print(f"send       {format_bytes(plan.data_bytes)} at most")
        print(f"discard    {format_bytes(plan.discard_bytes)}")
    if plan.new_chunks is not None:
        needed = format_bytes(plan.new_chunks * plan.chunk_bytes)
        chunk = format_bytes(plan.chunk_bytes)
        print(f"allocate   {plan.new_chunks} chunks of {chunk} at most: {needed}")
    print(f"free       {format_bytes(plan.free_bytes)} above the reserve at the target")
    print(f"create     {'the replica, ' if plan.creates_replica else ''}a snapshot at each end")
    for snapshot in plan.dropped:
        print(f"drop       {snapshot.name} (#{snapshot.sequence}) here")


def refuse_without_room(plan: DryRun, target: str) -> None:
    """Raise NoSpaceError if a push may allocate more than is free.

    What else the target would refuse by (its rules, its metadata) it only tells a push.
    """
    needed_bytes = (plan.new_chunks or 0) * plan.chunk_bytes
    if needed_bytes > plan.free_bytes:
        raise NoSpaceError(
            f"a push may allocate {format_bytes(needed_bytes)},"
            f" {format_bytes(plan.free_bytes)} are free above the reserve",
            where=target,
            safe="nothing was changed",
            next_step="make room there",
        )
