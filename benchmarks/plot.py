"""Draws figures as SVG, with matplotlib (dependency group "bench"); loaded only for --plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_OURS, _THEIRS = "#1f6fb2", "#b8b8b8"

# The same figures give the same file.
mpl.rcParams["svg.hashsalt"] = "blockrep"
mpl.rcParams["svg.fonttype"] = "none"


def scenarios(figures: dict[str, Any], path: Path) -> None:
    """Draw each tool's ratio to the reference of its scenario, with the spread over the rounds."""
    found = [one for one in figures["scenarios"].values() if _ratios(one)]
    heights = [len(_ratios(one)) + 1 for one in found]
    figure = Figure(figsize=(9, 0.24 * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(
        len(found), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    ).flat
    for axis, scenario in zip(axes, found, strict=True):
        ratios = _ratios(scenario)
        medians = [one["median"] for one in ratios.values()]
        spread = [
            [one["median"] - one["min"] for one in ratios.values()],
            [one["max"] - one["median"] for one in ratios.values()],
        ]
        colours = [_OURS if name.startswith("blockrep") else _THEIRS for name in ratios]
        axis.barh(list(ratios), medians, xerr=spread, color=colours, ecolor="#404040", capsize=2)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        axis.set_title(scenario["title"], fontsize=9, loc="left")
    figure.suptitle(
        f"Wall time, 1 = the reference ({figures['size_bytes'] >> 20} MiB, "
        f"{figures['rounds']} rounds, {figures['cores']} cores, both ends on one machine)",
        fontsize=10,
    )
    _save(figure, path)


def growth(figures: dict[str, Any], path: Path) -> None:
    """Draw time and memory against what grows; on scales that all share, so that flat is flat."""
    series = figures["series"]
    figure = Figure(figsize=(4 * len(series), 6), layout="constrained")
    grid = figure.subplots(2, len(series), squeeze=False, sharey="row")
    for (time_axis, memory_axis), one in zip(grid.T, series.values(), strict=True):
        points = one["points"]
        values = [point["value"] for point in points]
        for axis, key, colour in (
            (time_axis, "tool_seconds", _THEIRS),
            (time_axis, "seconds", _OURS),
            (memory_axis, "peak_mib", _OURS),
        ):
            axis.plot(values, [point[key] for point in points], "o-", color=colour)
            axis.set_xscale("log")
            axis.set_xlabel(one["unit"])
        time_axis.set_yscale("log")
        time_axis.set_title(one["title"], fontsize=9)
    grid[0][0].set_ylabel("seconds (grey: while thin_delta ran)")
    grid[1][0].set_ylabel("MiB, peak of the planning process")
    grid[1][0].set_ylim(bottom=0)
    _save(figure, path)


def _ratios(scenario: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {name: tool["ratio"] for name, tool in scenario["tools"].items() if tool["ratio"]}


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
