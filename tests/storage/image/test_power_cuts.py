"""A power cut loses no good snapshot and nothing acknowledged, whatever was on its way to the disk.

I1, I2, I3, I4 and I5 for image files; those of LVM are in tests/vm/test_power_cuts.py.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from blockrep.model.snapshots import Snapshot
from storage.image_volumes import Crashing, ImageVolumes
from storage.power_cuts import PowerCut, without_change_times
from storage.transfers import Transfer, change_live, push, read_all
from storage.volumes import CrashError

_STEPS = 400


class World:
    """Two image files, and what is to be pushed: all of it, or a change after a first push."""

    def __init__(self, folder: Path, seed: int, *, is_first: bool) -> None:
        (folder / "volumes").mkdir(parents=True)
        (folder / "graves").mkdir()
        self.rng = random.Random(seed)
        self.volumes = ImageVolumes(folder / "volumes")
        change_live(self.volumes, self.rng)
        self.base: Snapshot | None = None
        self.contents: dict[str, bytes] = {}
        if not is_first:
            self.base = push(self.volumes, None)
            self.contents[self.base.id] = self.volumes.read_live()
            change_live(self.volumes, self.rng)
        self.disk = PowerCut(folder / "volumes", folder / "graves", self.rng)
        self.new: Transfer | None = None
        self.committed = False

    def push_until(self, step: int, choice: int) -> int:
        """Push, and lose power at a step, in one of some ways.

        Returns:
            How many ways there are; 0: there is no such step.
        """
        try:
            with self.disk, Crashing(step):
                self.new = Transfer(self.volumes, self.base)
                self.contents[self.new.new.id] = self.new.content
                staging = self.new.target.begin(self.new.request)
                self.new.stream(staging, save_every=2)
                self.new.target.commit(staging, self.new.digest)
                self.committed = True
                self.new.finish(staging)
        except CrashError:
            self.volumes.reboot()
            return self.disk.lose(choice)
        return 0

    def check(self) -> None:
        """Look at what is there; push again; look again."""
        base = self._check_goods()
        push(self.volumes, self._check_resume() or base)
        self._check_replica()

    def _check_goods(self) -> Snapshot | None:
        found = self.volumes.target().inspect()
        assert not found.drifted, "nobody wrote to the replica"
        goods = {one.id for one in found.snapshots}
        assert not self.committed or (self.new and self.new.new.id in goods), "committed, and gone"
        if not goods:
            assert self.base is None, "a good snapshot is gone"
            return None
        if self.base is not None and self.volumes.keeps_many:
            assert self.base.id in goods, "a good snapshot is gone"
        for one in goods:
            with self.volumes.target().open_snapshot(one) as reader:
                assert read_all(reader) == self.contents[one], "a good snapshot has changed"
        self._check_replica()
        bases = [one for one in self.volumes.source().snapshots() if one.id in goods]
        assert bases, "no base is common to both"
        return max(bases, key=lambda one: one.sequence)

    def _check_replica(self) -> None:
        found = self.volumes.target().inspect()
        newest = max(found.snapshots, key=lambda one: one.sequence)
        with self.volumes.target().open_snapshot(newest.id) as reader:
            assert self.volumes.read_replica() == read_all(reader)

    def _check_resume(self) -> Snapshot | None:
        """What was acknowledged is not sent again, and the rest is still there to be sent."""
        if self.new is None or self.committed:
            return None
        new = self.new.new
        if new.id in {one.id for one in self.volumes.target().inspect().snapshots}:
            return None
        if new.id not in {one.id for one in self.volumes.source().snapshots()}:
            assert not self.new.saved_bytes, "there is nothing to resume from"
            return None
        self.new.source, self.new.target = self.volumes.source(), self.volumes.target()
        staging = self.new.target.begin(self.new.request)
        assert staging.info.cursor_bytes >= self.new.saved_bytes, "acknowledged, and lost"
        self.new.stream(staging)
        resumed = self.new.finish(staging)
        assert self.volumes.read_replica() == self.contents[new.id], "what was resumed differs"
        return resumed


def cut_at_each_step(folder: Path, seed: int, *, is_first: bool) -> None:
    with without_change_times():
        for step in range(1, _STEPS):
            choice, ways = 0, 1
            while choice < ways:
                world = World(folder / f"{step}-{choice}", seed, is_first=is_first)
                ways = world.push_until(step, choice)
                world.check()
                shutil.rmtree(folder / f"{step}-{choice}")
                choice += 1
            if not ways:
                assert step > 30
                return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("is_first", [True, False], ids=["all", "change"])
def test_a_power_cut_at_each_step_of_a_push(tmp_path: Path, is_first: bool) -> None:
    """Where files share no blocks, mostly: redo files and digest tables."""
    cut_at_each_step(tmp_path, 1, is_first=is_first)


@pytest.mark.root
@pytest.mark.parametrize("is_first", [True, False], ids=["all", "change"])
def test_a_power_cut_at_each_step_on_mounted_file_systems(
    mounted_directory: Path, is_first: bool
) -> None:
    """Clones, on XFS and btrfs."""
    cut_at_each_step(mounted_directory, 2, is_first=is_first)
