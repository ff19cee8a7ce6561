"""Figures out of results: medians, spreads, ratios round by round; as a table and as JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data import GIB
from scenario import Outcome

FORMAT = 2
_HEADINGS = ("", "wall s", "min..max", "ratio", "min..max", "cpu s/GiB", "MiB peak")


@dataclass(frozen=True)
class Spread:
    """The median, the least and the most of several figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """Return the spread of at least one figure."""
        ordered = sorted(figures)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def as_json(self) -> dict[str, float]:
        """Return it for a JSON file."""
        return {"median": self.median, "min": self.least, "max": self.most}


@dataclass(frozen=True)
class Row:
    """One tool's figures in one scenario.

    Attributes:
        ratio: of its wall time to the reference's in the same round; None: there is no reference.
        peak_mib: of the largest process of the sender and of the receiver.
    """

    tool: str
    wall: Spread
    ratio: Spread | None
    cpu_per_gib: Spread
    peak_mib: tuple[float, float]


def rows_of(outcome: Outcome) -> list[Row]:
    """Return the figures of every tool that ran."""
    reference = [one.wall_seconds for one in outcome.results.get(outcome.reference, [])]
    volume_gib = outcome.volume_bytes / GIB
    rows = []
    for tool, runs in outcome.results.items():
        walls = [one.wall_seconds for one in runs]
        ratio = Spread.of(ratios(walls, reference)) if reference else None
        cpu = Spread.of(one.cpu_seconds / volume_gib for one in runs)
        sender, receiver = (
            max(one.peak_kib[end] for one in runs) / 1024 for end in ("sender", "receiver")
        )
        rows.append(Row(tool, Spread.of(walls), ratio, cpu, (sender, receiver)))
    return rows


def ratios(walls: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return the ratio of each round: what slows a machine down for a while slows both."""
    return [wall / other for wall, other in zip(walls, reference, strict=True)]


def table(outcome: Outcome) -> str:
    """Return the figures for people."""
    lines = [_HEADINGS]
    for row in rows_of(outcome):
        ratio = ("", "")
        if row.ratio is not None:
            ratio = (f"{row.ratio.median:.2f}", f"{row.ratio.least:.2f}..{row.ratio.most:.2f}")
        lines.append(
            (
                row.tool,
                f"{row.wall.median:.3f}",
                f"{row.wall.least:.3f}..{row.wall.most:.3f}",
                *ratio,
                f"{row.cpu_per_gib.median:.2f}",
                "/".join(f"{one:.0f}" for one in row.peak_mib),
            )
        )
    text = [f"\n{outcome.title} (ratio: to {outcome.reference})", *aligned(lines)]
    text += [
        f"  {tool}: skipped, not installed: {', '.join(programs)}"
        for tool, programs in outcome.skipped.items()
    ]
    return "\n".join(text)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return the figures and every single run for a JSON file."""
    tools = {
        row.tool: {
            "wall_seconds": row.wall.as_json(),
            "ratio": row.ratio.as_json() if row.ratio else None,
            "cpu_seconds_per_gib": row.cpu_per_gib.as_json(),
            "peak_mib": dict(zip(("sender", "receiver"), row.peak_mib, strict=True)),
            "runs": [
                {"wall_seconds": one.wall_seconds, "cpu_seconds": one.cpu_seconds}
                for one in outcome.results[row.tool]
            ],
        }
        for row in rows_of(outcome)
    }
    return {
        "title": outcome.title,
        "reference": outcome.reference,
        "volume_bytes": outcome.volume_bytes,
        "tools": tools,
        "skipped": outcome.skipped,
    }
