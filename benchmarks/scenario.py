"""What a scenario is, and how it is run: every tool in turn, round by round."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from data import same_content
from measure import Result
from product import Product
from workspace import Workspace


class Place(Enum):
    """Where a scenario's files are."""

    MEMORY = "memory"
    DISK = "disk"  # the destinations; the source is in memory
    XFS = "xfs"  # an image in memory, mounted: files share blocks, so that a delta is known


def nothing(_round: int = 0) -> None:
    """Do nothing before a round or a run."""


@dataclass(frozen=True)
class Tool:
    """A way to do it.

    Attributes:
        run: one measured run.
        copies: pairs of what was sent and what must be the same afterwards.
        reset: before each run.
        needs: programs.
    """

    name: str
    run: Callable[[], Result]
    copies: list[tuple[Path, Path]]
    reset: Callable[[], None] = nothing
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the programs that this machine lacks."""
        return [program for program in self.needs if shutil.which(program) is None]


@dataclass(frozen=True)
class Scenario:
    """Tools that do the same.

    Attributes:
        tools: in the order in which they take turns.
        reference: the tool that the others are set beside.
        volume_bytes: for the processor time per GiB.
        change: before each round, given its number.
        product: to be sampled afterwards, with the first tool.
    """

    tools: list[Tool]
    reference: str
    volume_bytes: int
    change: Callable[[int], None] = nothing
    product: Product | None = None


@dataclass(frozen=True)
class Entry:
    """A scenario of the catalogue.

    Attributes:
        name, title: for the command line, for people.
        make: prepares it in a workspace, for a size in bytes.
        fresh: every tool writes new files, whatever was asked for.
        share: part of the size that is asked for.
        congestion: of TCP, if not the pinned one.
        like: the scenario that runs the same code; a smoke run leaves this one out.
    """

    name: str
    title: str
    make: Callable[[Workspace, int], Scenario]
    place: Place = Place.MEMORY
    fresh: bool = False
    share: float = 1.0
    congestion: str = ""
    like: str = ""


@dataclass
class Outcome:
    """All rounds of one scenario: for each tool, its results in order; and who was left out."""

    title: str
    reference: str
    volume_bytes: int
    results: dict[str, list[Result]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)


def measure(entry: Entry, scenario: Scenario, rounds: int) -> Outcome:
    """Run every tool that is here, in turn, ``rounds`` times; check what arrived.

    Raises:
        SystemExit: something else arrived than was sent.
    """
    outcome = Outcome(entry.title, scenario.reference, scenario.volume_bytes)
    outcome.skipped = {one.name: one.missing() for one in scenario.tools if one.missing()}
    tools = [one for one in scenario.tools if one.name not in outcome.skipped]
    for number in range(rounds):
        scenario.change(number)
        for tool in tools:
            outcome.results.setdefault(tool.name, []).append(run_checked(entry, tool))
    return outcome


def run_checked(entry: Entry, tool: Tool) -> Result:
    """Run a tool once. Raises SystemExit: something else arrived than was sent."""
    tool.reset()
    if entry.place is not Place.MEMORY:
        for _, arrived in tool.copies:  # what is not this run's is on the disk already
            subprocess.run(["sync", "--file-system", str(arrived.parent)], check=True)
    result = tool.run()
    for sent, arrived in tool.copies:
        if not same_content(sent, arrived):
            raise SystemExit(f"{entry.name}, {tool.name}: what arrived differs from what was sent")
    return result
