"""What an interruption costs: a push killed half way and resumed, beside one that was not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace

from data import MIB, make_mixed
from full_scenarios import Copies
from measure import Result, running
from product import Product
from scenario import Scenario, Tool
from workspace import Workspace

_SMALLEST_WINDOW_BYTES = 8 * MIB
_LARGEST_WINDOW_BYTES = 256 * MIB  # the product's own
_SECONDS = 3


@dataclass
class _Resuming:
    """One round's figures: what the tools tell each other."""

    product: Product
    space: Workspace
    whole: Result | None = None
    left: float = 0.0

    def push_whole(self) -> Result:
        """Push without an interruption."""
        self.whole = self.product.push()
        return self.whole

    def push_rest(self) -> Result:
        """Kill a push half way, without measuring it; measure what goes on."""
        self._kill_half_way()
        result = self.product.push_reporting()
        self.left = 1 - _done_before(result.output)
        return result

    def expect_rest(self) -> Result:
        """Return what the rest takes in proportion, in the uninterrupted push of this round."""
        assert self.whole is not None
        return replace(
            self.whole,
            wall_seconds=self.whole.wall_seconds * self.left,
            cpu_seconds=self.whole.cpu_seconds * self.left,
        )

    def _kill_half_way(self) -> None:
        server = self.product.server(self.product.port)
        client = self.product.client(
            "push",
            self.space.source,
            self.product.target,
            # Slow enough to be hit half way, whatever the size.
            f"--bwlimit={self.space.size_bytes // _SECONDS}",
            output="--json",
        )
        with (
            running([server]) as (serving,),
            subprocess.Popen(client.argv, stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "progress" and (
                    event["durable_bytes"] * 2 >= event["total_bytes"]
                ):
                    break
            process.kill()
            process.wait()
            serving.end_serving()
            serving.wait()


def _done_before(output: str) -> float:
    """Return which part was durable when a push went on, by its own events; 0: it started anew."""
    for line in output.splitlines():
        event = json.loads(line)
        if event["event"] == "resumed":
            return float(event["done_bytes"] / max(event["total_bytes"], 1))
    return 0.0


def resume(space: Workspace, size_bytes: int) -> Scenario:
    """Kill and resume."""
    make_mixed(space.source, size_bytes)
    copies = Copies(space)
    # Durable in small steps, so that a small volume is interrupted half way, too.
    window = min(max(size_bytes // 8, _SMALLEST_WINDOW_BYTES), _LARGEST_WINDOW_BYTES)
    space.configure(f"window_bytes = {window}\n")
    resuming = _Resuming(copies.product, space)
    pushed = [(space.source, space.replica)]
    expected = "the same part of it"
    tools = [
        Tool("blockrep whole push", resuming.push_whole, pushed, space.forget),
        Tool("blockrep resumed", resuming.push_rest, pushed, space.forget),
        Tool(expected, resuming.expect_rest, pushed),
    ]
    return copies.scenario(tools, expected)
