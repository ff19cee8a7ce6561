"""What every kind of storage promises; each kind's test file runs it over volumes of its own.

Needs nothing but pytest and blockrep itself, so that it also runs inside virtual machines.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from blockrep.errors import (
    BlockrepError,
    DivergedError,
    NoSpaceError,
    StorageError,
    VolumeError,
)
from blockrep.model.extents import Extent, ExtentKind, check_ascending, summarize
from blockrep.model.snapshots import Replica, Snapshot, Space
from blockrep.protocol.chain import first_chain
from storage.transfers import (
    LINEAGE,
    Transfer,
    adopt,
    change_live,
    new_id,
    push,
    read_all,
    take_snapshot,
)
from storage.volumes import CrashError, Volumes

_MAX_STEPS = 2000


def random_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def seen_again(replica: Replica) -> Replica:
    """Leave out the room, which others on this host use, too."""
    return dataclasses.replace(replica, space=Space(1, 0, 0))


class _Pushed:
    @pytest.fixture
    def base(self, volumes: Volumes) -> Snapshot:
        """A first push of a volume that is half full; the base of the next."""
        volumes.write_live(0, random_bytes(volumes.sizes[1] // 2, 7))
        return push(volumes, None)


class SourceContract(_Pushed):
    """Subclasses have a fixture ``volumes``."""

    def test_a_missing_volume_is_an_error(self, volumes: Volumes) -> None:
        source = volumes.missing_source()
        with pytest.raises(VolumeError):
            source.describe()
        with pytest.raises(VolumeError):
            take_snapshot(source)

    def test_describe_tells_size_and_a_stable_identity(self, volumes: Volumes) -> None:
        before = volumes.source().describe()
        assert before.size_bytes == volumes.sizes[1]
        assert before.identity
        take_snapshot(volumes.source())
        volumes.write_live(0, b"changed")
        volumes.resize_live(volumes.sizes[2])
        after = volumes.source().describe()
        assert after.identity == before.identity
        assert after.size_bytes == volumes.sizes[2]

    def test_snapshots_are_remembered_by_the_next_process(self, volumes: Volumes) -> None:
        source = volumes.source()
        first = take_snapshot(source, 1, target="one")
        second = take_snapshot(source, 1, lineage=new_id(), target="two")
        third = take_snapshot(source, 2, target="one")
        found = volumes.source().snapshots()
        assert sorted(found, key=lambda one: one.id) == sorted(
            [first, second, third], key=lambda one: one.id
        )
        assert [one.id for one in found if one.lineage == LINEAGE] == [first.id, third.id]
        assert not any(one.committed for one in found)
        assert {one.size_bytes for one in found} == {volumes.sizes[1]}

    def test_removing_is_idempotent_and_checks_the_lineage(self, volumes: Volumes) -> None:
        source = volumes.source()
        kept, gone = take_snapshot(source, 1), take_snapshot(source, 2)
        with pytest.raises(VolumeError):
            source.remove_snapshot(dataclasses.replace(gone, lineage=new_id()))
        source.remove_snapshot(gone)
        source.remove_snapshot(gone)
        assert volumes.source().snapshots() == [kept]
        with pytest.raises(VolumeError):
            volumes.source().open_snapshot(gone)
        with pytest.raises(VolumeError):
            list(volumes.source().delta(None, gone))

    def test_committed_is_remembered_and_may_be_said_again(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        assert base.committed
        assert volumes.source().snapshots() == [base]
        assert volumes.source().mark_committed(base) == base

    def test_a_full_delta_names_all_data_and_no_more_than_the_volume(
        self, volumes: Volumes
    ) -> None:
        data = random_bytes(5000)
        volumes.write_live(volumes.sizes[1] - len(data), data)
        source = volumes.source()
        snapshot = take_snapshot(source)
        extents = list(check_ascending(source.delta(None, snapshot), snapshot.size_bytes))
        assert {one.kind for one in extents} == {ExtentKind.DATA}
        assert extents[-1].end_bytes == snapshot.size_bytes
        assert sum(one.length_bytes for one in extents) < snapshot.size_bytes // 2
        with source.open_snapshot(snapshot) as reader:
            assert list(reader.allocated()) == extents

    def test_the_same_two_snapshots_have_the_same_delta(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        change_live(volumes, random.Random(5), 20)
        source = volumes.source()
        new = take_snapshot(source, 2)
        first = summarize(source.delta(base, new))
        assert summarize(source.delta(base, new)) == first
        assert summarize(volumes.source().delta(base, new)) == first
        assert first.extent_count

    def test_nothing_changed_is_no_delta(self, volumes: Volumes, base: Snapshot) -> None:
        source = volumes.source()
        assert not list(source.delta(base, take_snapshot(source, 2)))

    def test_a_discard_is_a_discard(self, volumes: Volumes, base: Snapshot) -> None:
        length = volumes.unit_bytes * 4
        volumes.discard_live(0, length)
        source = volumes.source()
        delta = list(source.delta(base, take_snapshot(source, 2)))
        assert delta == [Extent(0, length, ExtentKind.DISCARD)]

    def test_a_preview_leaves_nothing_behind(self, volumes: Volumes, base: Snapshot) -> None:
        change_live(volumes, random.Random(6))
        source = volumes.source()
        preview = list(source.delta(base, None))
        assert preview
        assert list(source.delta(None, None))
        assert volumes.source().snapshots() == [base]
        assert list(source.delta(base, take_snapshot(source, 2))) == preview

    def test_a_snapshot_does_not_follow_the_volume(self, volumes: Volumes) -> None:
        volumes.write_live(0, random_bytes(300_000))
        source = volumes.source()
        before = volumes.read_live()
        snapshot = take_snapshot(source)
        volumes.write_live(100_000, random_bytes(300_000, 1))
        if volumes.source_has_snapshots:
            with volumes.source().open_snapshot(snapshot) as reader:
                assert read_all(reader) == before
                reader.confirm()
            return
        # Without snapshots, the change is noticed, and the snapshot ceases to be.
        with pytest.raises(VolumeError, match="changed while it was being read"):
            source.open_snapshot(snapshot)
        assert not volumes.source().snapshots()

    def test_a_change_between_reading_and_committing_is_noticed(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        if volumes.source_has_snapshots:
            pytest.skip("snapshots do not change")
        volumes.write_live(70_000, b"one")
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, confirm=False)
        volumes.write_live(70_000, b"two")
        with pytest.raises(VolumeError, match="changed while it was being read"):
            transfer.stream(staging)
        staging.close()
        assert volumes.source().snapshots() == [base]
        push(volumes, base)

    def test_stored_digests_are_of_the_snapshot(self, volumes: Volumes, base: Snapshot) -> None:
        import xxhash

        table = volumes.source().stored_digests(base)
        assert (table is None) == volumes.source_has_snapshots
        if table is None:
            return
        block_bytes, seed, digests = table
        content = volumes.read_live()
        assert list(digests) == [
            xxhash.xxh3_128_digest(content[at : at + block_bytes], seed)
            for at in range(0, len(content), block_bytes)
        ]

    def test_a_crash_leaves_a_whole_snapshot_or_none(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        for step in range(1, _MAX_STEPS, volumes.crash_stride):
            try:
                with volumes.crash_at(step):
                    source = volumes.source()
                    new = take_snapshot(source, 2)
                    list(source.delta(base, new))
                    with source.open_snapshot(new) as reader:
                        reader.confirm()
                    source.mark_committed(new)
                    source.remove_snapshot(new)
            except CrashError:
                volumes.reboot()
            else:
                break
            found = volumes.source().snapshots()
            assert base in found
            for one in found:
                if one.id != base.id:
                    source = volumes.source()
                    assert not list(source.delta(base, one))
                    with source.open_snapshot(one) as reader:
                        assert read_all(reader) == volumes.read_live()
                        reader.confirm()
                    source.mark_committed(one)
                    source.remove_snapshot(one)
        assert volumes.source().snapshots() == [base]


class TargetContract(_Pushed):
    """Subclasses have a fixture ``volumes``."""

    def test_an_absent_replica_is_described(self, volumes: Volumes) -> None:
        replica = volumes.target().inspect()
        assert not replica.exists
        assert not replica.owned
        assert replica.info is None
        assert not replica.snapshots
        assert replica.staging is None
        assert replica.space.free_bytes > 0
        assert replica.space.chunk_bytes > 0

    @pytest.mark.parametrize("seed", range(4))
    def test_any_sequence_of_changes_arrives(self, volumes: Volumes, seed: int) -> None:
        rng = random.Random(seed)
        base: Snapshot | None = None
        contents: dict[str, bytes] = {}
        size = 1
        for _ in range(6):
            if rng.random() < 0.4:
                size = rng.randrange(len(volumes.sizes))
                volumes.resize_live(volumes.sizes[size])
            change_live(volumes, rng)
            base = push(volumes, base, allow_shrink=True)
            contents[base.id] = volumes.read_live()
            volumes.target().prune(3, ())
            replica = volumes.target().inspect()
            assert replica.info is not None
            assert replica.info.size_bytes == volumes.sizes[size]
            assert replica.lineage == LINEAGE
            assert not replica.drifted
            assert len(replica.snapshots) == (min(3, len(contents)) if volumes.keeps_many else 1)
            assert replica.snapshots[-1].id == base.id
            for snapshot in replica.snapshots:
                with volumes.target().open_snapshot(snapshot.id) as reader:
                    assert read_all(reader) == contents[snapshot.id]

    def test_the_replica_shows_the_good_snapshot_until_the_commit(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        before = volumes.read_live()
        change_live(volumes, random.Random(1))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging)
        assert volumes.read_replica() == before
        with volumes.target().open_snapshot(base.id) as reader:
            assert read_all(reader) == before
        transfer.finish(staging)
        assert volumes.read_replica() == transfer.content

    def test_ranges_need_not_be_aligned(self, volumes: Volumes) -> None:
        transfer = Transfer(volumes, None)
        if transfer.replica.align_bytes > 1:
            pytest.skip("this target demands whole blocks")
        staging = transfer.target.begin(transfer.request)
        expected = bytearray(transfer.new.size_bytes)
        rng = random.Random(3)
        for _ in range(60):
            offset = rng.randrange(len(expected) - 1)
            length = min(rng.randint(1, 90_000), len(expected) - offset)
            if rng.random() < 0.4:
                staging.clear(Extent(offset, length, ExtentKind.ZERO))
                expected[offset : offset + length] = bytes(length)
            else:
                data = rng.randbytes(length)
                staging.write(offset, memoryview(data))
                expected[offset : offset + length] = data
        with staging.reader() as reader:
            assert read_all(reader) == expected
        transfer.target.commit(staging, transfer.digest)
        assert volumes.read_replica() == expected

    def test_a_transfer_starts_with_its_own_chain(self, volumes: Volumes) -> None:
        transfer = Transfer(volumes, None)
        staging = transfer.target.begin(transfer.request)
        assert transfer.request.plan is not None
        digest = transfer.request.plan.digest
        assert staging.info.chain == first_chain(transfer.new.id, digest)
        assert staging.info.plan_digest == digest
        assert staging.info.cursor_bytes == 0
        staging.close()

    @pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
    def test_an_interrupted_transfer_goes_on_at_its_cursor(
        self, volumes: Volumes, *, incremental: bool
    ) -> None:
        size_bytes = volumes.sizes[1]
        volumes.write_live(0, random_bytes(size_bytes, 1))
        base = push(volumes, None) if incremental else None
        volumes.write_live(0, random_bytes(size_bytes, 2))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, most=7, save_every=3)  # the seventh is not durable
        info = staging.info
        assert 0 < info.cursor_bytes < size_bytes
        staging.close()

        resumed = Transfer(volumes, base, new=transfer.new)
        assert resumed.replica.staging == info
        assert resumed.request == transfer.request
        staging = resumed.target.begin(resumed.request)
        assert staging.info == info
        all_pieces = len(list(resumed.pieces(0)))
        assert resumed.stream(staging) == all_pieces - 6
        resumed.finish(staging)
        assert volumes.read_replica() == transfer.content
        assert volumes.target().inspect().staging is None

    def test_an_attempt_that_nobody_continues_is_rolled_back(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        # What attempt B wrote and C no longer names must not stay (trap 6).
        original = volumes.read_live()
        volumes.write_live(0, random_bytes(200_000, 8))
        abandoned = Transfer(volumes, base)
        staging = abandoned.target.begin(abandoned.request)
        abandoned.stream(staging)
        staging.close()
        volumes.source().remove_snapshot(abandoned.new)
        volumes.write_live(0, original[:200_000])
        volumes.write_live(400_000, b"what C names")
        successor = Transfer(volumes, base)
        staging = successor.target.begin(successor.request)
        assert staging.info.cursor_bytes == 0
        successor.stream(staging)
        successor.finish(staging)
        assert volumes.read_replica() == successor.content

    @pytest.mark.parametrize("field", ["lineage", "snapshot_id", "sequence", "size_bytes"])
    def test_only_the_very_same_transfer_is_resumed(self, volumes: Volumes, field: str) -> None:
        volumes.write_live(0, random_bytes(900_000))
        transfer = Transfer(volumes, None)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, most=4, save_every=2)
        staging.close()
        request = transfer.request
        others = {
            "lineage": dataclasses.replace(request, lineage=new_id()),
            "snapshot_id": dataclasses.replace(request, snapshot_id=new_id()),
            "sequence": dataclasses.replace(request, sequence=9),
            "size_bytes": dataclasses.replace(request, size_bytes=volumes.sizes[2]),
        }
        fresh = volumes.target().begin(others[field])
        assert fresh.info.cursor_bytes == 0
        assert fresh.info.identity != staging.info.identity
        fresh.close()

    def test_another_plan_is_another_transfer(self, volumes: Volumes) -> None:
        volumes.write_live(0, random_bytes(900_000))
        transfer = Transfer(volumes, None)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, most=4, save_every=2)
        staging.close()
        plan = summarize([*transfer.plan[:-1]])
        fresh = volumes.target().begin(dataclasses.replace(transfer.request, plan=plan))
        assert fresh.info.cursor_bytes == 0
        fresh.close()

    def test_abandoning_touches_nothing_else(self, volumes: Volumes, base: Snapshot) -> None:
        before = volumes.read_replica()
        volumes.target().abandon()
        change_live(volumes, random.Random(1))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging)
        staging.close()
        volumes.target().abandon()
        replica = volumes.target().inspect()
        assert replica.staging is None
        assert [one.id for one in replica.snapshots] == [base.id]
        assert volumes.read_replica() == before

    def test_a_commit_may_be_asked_for_again(self, volumes: Volumes, base: Snapshot) -> None:
        change_live(volumes, random.Random(1))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging)
        good = transfer.target.commit(staging, transfer.digest)
        assert transfer.target.commit(staging, transfer.digest) == good
        staging.close()
        assert volumes.target().inspect().snapshots[-1] == good
        assert good.size_bytes == transfer.new.size_bytes
        assert (good.sequence, good.lineage) == (2, LINEAGE)
        assert good.created_seconds == transfer.new.created_seconds

    def test_a_crash_anywhere_leaves_the_old_content_or_the_new(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        rng = random.Random(11)
        published = 0
        for step in range(1, _MAX_STEPS, volumes.crash_stride):
            before = volumes.read_replica()
            change_live(volumes, rng, 3)
            crashed, transfer = self._crash_during_push(volumes, base, step)
            replica = volumes.target().inspect()
            is_new = replica.snapshots[-1].id != base.id
            assert volumes.read_replica() == (volumes.read_live() if is_new else before)
            assert not replica.drifted
            if transfer.saved_bytes and not is_new:  # nothing that is durable is sent again
                assert replica.staging is not None
                assert replica.staging.cursor_bytes >= transfer.saved_bytes
            assert seen_again(volumes.target().inspect()) == seen_again(replica)
            base = self._push_on(volumes, base, transfer)
            published += is_new
            if not crashed:
                break
        assert published > 1, "no crash came between the commit point and the end"

    @staticmethod
    def _crash_during_push(volumes: Volumes, base: Snapshot, step: int) -> tuple[bool, Transfer]:
        # The sender, another host, does not crash.
        transfer = Transfer(volumes, base)
        staging = None
        try:
            with volumes.crash_at(step):
                target = volumes.target()
                target.inspect()
                staging = target.begin(transfer.request)
                transfer.stream(staging, save_every=2)
                target.commit(staging, transfer.digest)
                target.prune(2, ())
        except CrashError:
            volumes.reboot()
            return True, transfer
        return False, transfer

    @staticmethod
    def _push_on(volumes: Volumes, base: Snapshot, crashed: Transfer) -> Snapshot:
        """Finish what crashed, as a driver would; return the new base."""
        replica = volumes.target().inspect()
        if replica.snapshots[-1].id == crashed.new.id:
            committed = volumes.source().mark_committed(crashed.new)
            volumes.source().remove_snapshot(base)
            return committed
        new = None
        if replica.staging is not None:
            assert replica.staging.snapshot_id == crashed.new.id
            new = crashed.new
        else:
            volumes.source().remove_snapshot(crashed.new)
        transfer = Transfer(volumes, base, new=new)
        committed = transfer.run()
        assert volumes.read_replica() == transfer.content
        return committed

    def test_pruning_keeps_the_newest_and_the_protected(self, volumes: Volumes) -> None:
        ids = []
        base: Snapshot | None = None
        for number in range(5):
            volumes.write_live(number * 10_000, random_bytes(20_000, number))
            base = push(volumes, base)
            ids.append(base.id)
        held = [one.id for one in volumes.target().inspect().snapshots]
        assert held == (ids if volumes.keeps_many else ids[-1:])
        removed = volumes.target().prune(2, [ids[0], ids[-1]])
        assert [one.id for one in removed] == (ids[1:3] if volumes.keeps_many else [])
        volumes.target().prune(0, ())
        replica = volumes.target().inspect()
        assert [one.id for one in replica.snapshots] == ids[-1:]
        assert volumes.read_replica() == volumes.read_live()
        with pytest.raises(VolumeError):
            volumes.target().open_snapshot(ids[0])

    def test_an_unknown_snapshot_cannot_be_opened(self, volumes: Volumes) -> None:
        with pytest.raises(VolumeError):
            volumes.target().open_snapshot(new_id())


class RefusalContract(_Pushed):
    """What a target refuses, and that nothing was changed then.

    Subclasses have a fixture ``volumes``.
    """

    def test_a_foreign_volume_is_refused_unless_adopted(self, volumes: Volumes) -> None:
        size_bytes = volumes.sizes[1]
        content = random_bytes(size_bytes)
        volumes.make_foreign(content)
        replica = volumes.target().inspect()
        assert replica.exists
        assert not replica.owned
        transfer = Transfer(volumes, None)
        with pytest.raises(VolumeError):
            transfer.target.begin(transfer.request)
        assert volumes.read_replica() == content
        assert seen_again(replica) == seen_again(volumes.target().inspect())
        volumes.source().remove_snapshot(transfer.new)

        volumes.write_live(0, content)
        volumes.write_live(size_bytes // 2, random_bytes(1000, 3))
        base, sent_bytes = adopt(volumes)
        assert 0 < sent_bytes < size_bytes // 2
        assert volumes.read_replica() == volumes.read_live()
        replica = volumes.target().inspect()
        assert replica.owned
        assert [one.id for one in replica.snapshots] == [base.id]
        change_live(volumes, random.Random(2))
        push(volumes, base)

    def test_there_must_be_something_to_adopt(self, volumes: Volumes) -> None:
        transfer = Transfer(volumes, None, mode="adopt")
        with pytest.raises(VolumeError):
            transfer.target.begin(transfer.request)

    def test_an_interrupted_adoption_changed_nothing(self, volumes: Volumes) -> None:
        content = random_bytes(volumes.sizes[1])
        volumes.make_foreign(content)
        transfer = Transfer(volumes, None, mode="adopt")
        staging = transfer.target.begin(dataclasses.replace(transfer.request, plan=None))
        staging.write(0, memoryview(bytes(65536)))
        staging.sync()
        staging.close()
        assert volumes.read_replica() == content
        replica = volumes.target().inspect()
        assert not replica.owned
        assert replica.staging is None
        volumes.source().remove_snapshot(transfer.new)
        adopt(volumes)
        assert volumes.read_replica() == volumes.read_live()

    def test_an_interrupted_adoption_is_not_offered_for_a_resume(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        """A plain push would go on with it as a full transfer that nobody asked for."""
        volumes.write_live(0, b"changed")
        transfer = Transfer(volumes, None, mode="adopt")
        plain = dataclasses.replace(transfer.request, plan=None, new_chunks=0)
        staging = transfer.target.begin(plain)
        staging.set_plan(summarize(transfer.plan), transfer.request.new_chunks)
        transfer.stream(staging, most=2, save_every=1)
        staging.close()
        replica = volumes.target().inspect()
        assert replica.staging is None
        assert [one.id for one in replica.snapshots] == [base.id]

    def test_drift_is_noticed_and_adopted(self, volumes: Volumes, base: Snapshot) -> None:
        volumes.tamper(12_345, b"written behind blockrep's back")
        replica = volumes.target().inspect()
        assert replica.drifted
        assert [one.id for one in replica.snapshots] == [base.id]
        change_live(volumes, random.Random(4))
        tampered = volumes.read_replica()
        transfer = Transfer(volumes, base)
        with pytest.raises(DivergedError):
            transfer.target.begin(transfer.request)
        assert volumes.read_replica() == tampered
        volumes.source().remove_snapshot(transfer.new)
        adopt(volumes)
        assert volumes.read_replica() == volumes.read_live()
        assert not volumes.target().inspect().drifted

    def test_drift_during_the_transfer_stops_the_commit(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        change_live(volumes, random.Random(4))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging)
        volumes.tamper(0, b"in between")
        tampered = volumes.read_replica()
        with pytest.raises(DivergedError):
            transfer.target.commit(staging, transfer.digest)
        staging.close()
        assert volumes.read_replica() == tampered
        replica = volumes.target().inspect()
        assert replica.drifted
        assert [one.id for one in replica.snapshots] == [base.id]

    def test_a_base_that_is_not_here_is_refused(self, volumes: Volumes, base: Snapshot) -> None:
        transfer = Transfer(volumes, base)
        request = dataclasses.replace(transfer.request, base_id=new_id())
        with pytest.raises(DivergedError):
            transfer.target.begin(request)
        assert volumes.target().inspect().staging is None

    def test_what_is_good_is_not_begun_again(self, volumes: Volumes, base: Snapshot) -> None:
        """Recovery would take such a staging volume for the remains of that commit (I3)."""
        before = volumes.read_replica()
        volumes.write_live(0, b"changed")
        transfer = Transfer(volumes, base)
        again = dataclasses.replace(transfer.request, snapshot_id=base.id)
        with pytest.raises(VolumeError, match="is here already"):
            transfer.target.begin(again)
        replica = volumes.target().inspect()
        assert (replica.staging, [one.id for one in replica.snapshots]) == (None, [base.id])
        assert volumes.read_replica() == before

    def test_getting_smaller_needs_consent(self, volumes: Volumes, base: Snapshot) -> None:
        volumes.resize_live(volumes.sizes[0])
        before = volumes.read_replica()
        transfer = Transfer(volumes, base)
        with pytest.raises(VolumeError):
            transfer.target.begin(transfer.request)
        assert volumes.read_replica() == before
        volumes.source().remove_snapshot(transfer.new)
        push(volumes, base, allow_shrink=True)

    def test_too_little_room_is_known_before_anything_is_done(
        self, volumes: Volumes, base: Snapshot
    ) -> None:
        volumes.write_live(0, random_bytes(100_000, 4))
        transfer = Transfer(volumes, base)
        target = volumes.target_without_room()
        before = target.inspect()
        assert before.space.free_bytes <= 0
        with pytest.raises(NoSpaceError):
            target.begin(transfer.request)
        assert seen_again(volumes.target_without_room().inspect()) == seen_again(before)
        staging = volumes.target().begin(transfer.request)
        assert staging.space().free_bytes > 0
        staging.close()

    @pytest.mark.parametrize("what", ["write", "sync"])
    def test_the_first_failure_poisons_staging(
        self, volumes: Volumes, base: Snapshot, what: str
    ) -> None:
        # fsync is never retried: the second one would say that all is well (I6).
        volumes.write_live(0, random_bytes(300_000, 4))
        before = volumes.read_replica()
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, most=2)
        with (
            volumes.failing("sync" if what == "sync" else "write"),
            pytest.raises(BlockrepError) as caught,
        ):
            transfer.stream(staging, save_every=1)
        assert isinstance(caught.value, StorageError if what == "sync" else NoSpaceError)
        calls = (
            lambda: staging.write(0, memoryview(b"x")),
            lambda: staging.clear(Extent(0, 4096, ExtentKind.ZERO)),
            staging.sync,
            lambda: staging.save_cursor(4096, bytes(32)),
            lambda: transfer.target.commit(staging, transfer.digest),
        )
        for call in calls:
            with pytest.raises(StorageError):
                call()
        staging.close()
        assert volumes.read_replica() == before
        if what == "sync":
            assert volumes.target().inspect().staging is None
        Transfer(volumes, base, new=transfer.new).run()
        assert volumes.read_replica() == transfer.content

    def test_a_replica_in_use_is_refused(self, volumes: Volumes, base: Snapshot) -> None:
        transfer = Transfer(volumes, base)
        with volumes.in_use():
            with pytest.raises(VolumeError):
                volumes.target().inspect()
            with pytest.raises(VolumeError):
                transfer.target.begin(transfer.request)
        transfer.run()

    def test_what_is_not_ours_stays(self, volumes: Volumes, base: Snapshot) -> None:
        is_untouched = volumes.plant_unowned()
        change_live(volumes, random.Random(1))
        abandoned = Transfer(volumes, base)
        staging = abandoned.target.begin(abandoned.request)
        staging.close()
        volumes.target().abandon()
        volumes.source().remove_snapshot(abandoned.new)
        base = push(volumes, base)
        volumes.target().prune(1, ())
        volumes.source().remove_snapshot(base)
        assert is_untouched()


class StorageContract(SourceContract, TargetContract, RefusalContract):
    """All of it."""
