"""``blockrep pull``: a replica here of a volume there."""

from __future__ import annotations

import argparse
import dataclasses

from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import sink_for
from blockrep.cli.running import (
    rate_of,
    retry_policy,
    run_operation,
    settings_of,
    target_of,
    volume_of,
)
from blockrep.client import pulling
from blockrep.client.retrying import Remaining, retrying
from blockrep.errors import UsageError
from blockrep.model.lineage import Wish
from blockrep.replication.receiver import ReceiverLimits

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Pull."""
    if options.keep < 1:
        raise UsageError("at least 1 snapshot is kept", where=f"--keep {options.keep}")
    settings = settings_of(options)
    source = target_of(options.source, settings)
    target = volume_of(options.target, "TARGET")
    server = settings.server
    remaining = Remaining(Wish(full=options.full, adopt=options.adopt, shrink=options.shrink))
    pull_options = pulling.PullOptions(
        ReceiverLimits(
            server.max_payload_bytes,
            server.window_bytes,
            server.heartbeat_seconds,
            server.peer_timeout_seconds,
        ),
        keep=options.keep,
        wish=remaining.wish,
        compress=options.compress,
        bytes_per_second=rate_of(options.bwlimit),
    )
    sink = sink_for(str(target), as_json=options.json, quiet=options.quiet)
    try:
        with client_graph(settings) as context:
            run_operation(
                retrying(
                    lambda sink: pulling.pull(
                        context,
                        source,
                        target,
                        dataclasses.replace(pull_options, wish=remaining.wish),
                        remaining.watched(sink),
                    ),
                    retry_policy(settings) if options.retry else None,
                    sink,
                )
            )
    finally:
        sink.finish()
    return 0
