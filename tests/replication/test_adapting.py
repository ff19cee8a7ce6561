"""Compression is on where that was seen to move more content, and off where it was not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blockrep.replication.adapting import CompressionChoice

FRAME = 512 * 1024


class Link:
    """A sender whose content passes at a rate that depends on whether it is compressed."""

    def __init__(self, plain_rate: float, packed_rate: float, held_up: float = 0.95) -> None:
        self.rates = {False: plain_rate, True: packed_rate}
        self.held_up = held_up
        self.now = 100.0
        self.choice = CompressionChoice(self.now)
        self.moved = {False: 0.0, True: 0.0}

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while self.now < end and not until():
            packed = self.choice.wanted
            took = FRAME / self.rates[packed]
            self.now += took
            self.moved[packed] += took
            self.choice.note_sent(FRAME, took * self.held_up, self.now)


def test_a_slow_link_and_content_that_shrinks() -> None:
    link = Link(12e6, 36e6)
    link.run(3)
    assert link.choice.wanted
    link.run(600)
    assert link.moved[True] > 0.95 * (link.moved[True] + link.moved[False])


def test_content_that_does_not_shrink_is_tried_ever_more_rarely() -> None:
    link = Link(12e6, 11.9e6)
    link.run(900)
    assert link.moved[True] < 0.05 * link.moved[False]
    assert link.moved[True] > 0


@pytest.mark.parametrize(
    "link",
    [Link(1.2e9, 3e8), Link(100e6, 300e6, held_up=0.1)],
    ids=["a fast link", "a source that is slower than the link"],
)
def test_it_is_not_even_tried(link: Link) -> None:
    link.run(60)
    assert link.moved[True] == 0


def test_a_link_that_becomes_fast_is_noticed() -> None:
    link = Link(12e6, 36e6)
    link.run(5)
    assert link.choice.wanted
    link.rates = {False: 1e9, True: 3e8}
    link.run(120)
    assert not link.choice.wanted


def test_the_kernels_empty_buffers_do_not_count_as_the_links_rate() -> None:
    link = Link(1e9, 36e6)
    link.run(0.02)
    link.rates[False] = 12e6
    link.run(4)
    assert link.choice.wanted


def test_a_slow_link_is_known_after_a_few_frames() -> None:
    link = Link(1.2e6, 3.6e6)
    link.run(600, until=lambda: link.choice.wanted)
    assert link.moved[False] <= 5 * FRAME / 1.2e6
