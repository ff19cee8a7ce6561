"""``blockrep doctor``: looks at everything that replication needs, and says what helps."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator

from blockrep.cli import checking
from blockrep.cli.graph import client_graph
from blockrep.cli.rendering import format_age, sink_for
from blockrep.cli.running import run_operation, settings_of, target_of
from blockrep.client import operations
from blockrep.config.settings import Settings
from blockrep.errors import BlockrepError, VolumeError
from blockrep.model.findings import Finding, Level
from blockrep.model.names import Target

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Check; return 0, or the exit code of the first error that is left."""
    settings = settings_of(options)
    target = None if options.target is None else target_of(options.target, settings)
    exit_code = 0
    problems = 0
    for finding in _findings(settings, target):
        fixed = _fix(finding) if options.fix and finding.fix is not None else ""
        solved = fixed == "fixed"
        if finding.level is not Level.OK and not solved:
            problems += 1
            exit_code = exit_code or finding.exit_code
        _show(finding, fixed, options)
    if not options.json and not options.quiet:
        print(f"{problems or 'no'} {'problem' if problems == 1 else 'problems'}")
    return exit_code


def _findings(settings: Settings, target: Target | None) -> Iterator[Finding]:
    now = time.time()
    utc = dt.datetime.fromtimestamp(now, dt.UTC)
    yield checking.check_clock(utc)
    yield from checking.check_directories(settings)
    yield from checking.check_certificates(settings, socket.gethostname(), utc)
    if settings.access.image_directory is not None:
        from blockrep.storage.image.checking import check_images  # noqa: PLC0415 - where needed

        yield from check_images(settings.access.image_directory)
    yield from _lvm(settings, now)
    if target is not None:
        yield _reach(settings, target, now)


def _lvm(settings: Settings, now: float) -> Iterator[Finding]:
    if shutil.which("lvs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        yield Finding(Level.OK, "lvm2", "is not installed: image files only")
        return
    if os.geteuid() != 0:
        yield Finding(Level.WARNING, "lvm2", "was not checked", "run blockrep doctor as root")
        return
    from blockrep.storage.lvm.checking import check_lvm  # noqa: PLC0415 - where needed

    yield from check_lvm(settings.storage, now)


def _reach(settings: Settings, target: Target, now: float) -> Finding:
    """Log in, and ask for the replica's snapshots: all that a push needs, but for writing."""
    try:
        with client_graph(settings) as context:
            sink = sink_for(str(target), as_json=False, quiet=True)
            replica = run_operation(operations.list_remote(context, target, sink))
    except VolumeError as error:  # let in, but there is nothing yet, or something is in the way
        return Finding(Level.WARNING, str(target), str(error))
    except BlockrepError as error:
        finding = Finding.of_error(error)
        where = f"{target} ({finding.where})" if finding.where else str(target)
        return Finding(Level.ERROR, where, finding.what, finding.remedy, finding.exit_code)
    if not replica.snapshots:
        return Finding(Level.OK, str(target), "is reachable; there is no good snapshot yet")
    newest = max(one.created_seconds for one in replica.snapshots)
    if newest > now + 60:
        ahead = format_age(newest - now)
        what = f"has a snapshot of {ahead} from now: the clocks of the two hosts differ, or did"
        return Finding(Level.WARNING, str(target), what, "compare them: timedatectl")
    return Finding(
        Level.OK,
        str(target),
        f"is reachable; its newest good snapshot is {format_age(now - newest)} old",
    )


def _fix(finding: Finding) -> str:
    """Return "fixed", or why not."""
    assert finding.fix is not None
    try:
        finding.fix()
    except (BlockrepError, OSError) as error:
        return f"not fixed: {error}"
    return "fixed"


def _show(finding: Finding, fixed: str, options: argparse.Namespace) -> None:
    if options.json:
        fields = {
            "event": "finding",
            "level": finding.level.value,
            "where": finding.where,
            "what": finding.what,
            "remedy": finding.remedy,
            "fixable": finding.fix is not None,
            "fixed": fixed == "fixed",
        }
        print(json.dumps(fields), flush=True)
        return
    if options.quiet and (finding.level is Level.OK or fixed == "fixed"):
        return
    print(f"{finding.level.value:<8} {finding.where}: {finding.what}")
    if fixed:
        print(f"         {fixed}")
    elif finding.remedy:
        safe = " (or: blockrep doctor --fix)" if finding.fix is not None else ""
        print(f"         -> {finding.remedy}{safe}")
