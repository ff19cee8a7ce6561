"""What a push does is decided from both hosts' snapshots, never guessed; conflicts show why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from blockrep.errors import DivergedError, VolumeError
from blockrep.model.lineage import Mode, Wish, decide, describe_lineage
from blockrep.model.snapshots import Replica, Snapshot, Space, StagingInfo, VolumeInfo

SOURCE = VolumeInfo("lvm-thin", "source-uuid", 1 << 30, 65536)
REPLICA_INFO = VolumeInfo("lvm-thin", "replica-uuid", 1 << 30, 65536)
SPACE = Space(65536, 1 << 40, 1 << 30)
LINEAGE = "a" * 32
OTHER = "b" * 32
TARGET = "tls://replica:8733/vg/lv"


def snapshot(
    sequence: int, *, lineage: str = LINEAGE, committed: bool = True, target: str = TARGET
) -> Snapshot:
    return Snapshot(
        f"{sequence:032x}", lineage, sequence, 1000 + sequence, 1 << 30, committed, target=target
    )


def replica(*good: Snapshot, lineage: str = LINEAGE, staging: StagingInfo | None = None) -> Replica:
    return Replica(
        exists=True,
        owned=True,
        info=REPLICA_INFO,
        lineage=lineage,
        space=SPACE,
        snapshots=good,
        staging=staging,
    )


def staging_of(one: Snapshot, base: Snapshot | None = None) -> StagingInfo:
    return StagingInfo(
        "s", one.lineage, base.id if base else "", one.id, bytes(32), 4096, bytes(32)
    )


ABSENT = Replica(exists=False, owned=False, info=None, lineage="", space=SPACE)
FOREIGN = Replica(exists=True, owned=False, info=REPLICA_INFO, lineage="", space=SPACE)


def test_a_replica_that_does_not_exist_gets_everything() -> None:
    decision = decide(SOURCE, [], ABSENT, TARGET, Wish())
    assert (decision.mode, decision.lineage, decision.base, decision.sequence) == (
        Mode.FULL,
        "",
        None,
        1,
    )


def test_the_newest_common_snapshot_is_the_base() -> None:
    decision = decide(SOURCE, [snapshot(2)], replica(snapshot(1), snapshot(2)), TARGET, Wish())
    assert decision.mode is Mode.INCREMENTAL
    assert decision.base == snapshot(2)
    assert (decision.lineage, decision.sequence) == (LINEAGE, 3)


def test_a_lost_committed_is_made_up_for() -> None:
    lost = snapshot(2, committed=False)
    decision = decide(
        SOURCE, [snapshot(1), lost], replica(snapshot(1), snapshot(2)), TARGET, Wish()
    )
    assert decision.newly_committed == (lost,)
    assert decision.base == lost
    assert decision.obsolete == ()


@pytest.mark.parametrize(
    "differs",
    [{"size_bytes": 1 << 29}, {"sequence": 7}, {"lineage": OTHER}],
    ids=["size", "sequence", "lineage"],
)
def test_what_is_not_what_was_sent_was_not_committed(differs: dict[str, Any]) -> None:
    lost = snapshot(2, committed=False)
    there = replica(snapshot(1), replace(snapshot(2), **differs))
    with pytest.raises(DivergedError, match=r"something else under the id .* of our") as caught:
        decide(SOURCE, [snapshot(1), lost], there, TARGET, Wish())
    assert caught.value.what.count("#") == 2
    for wish in (Wish(full=True), Wish(adopt=True)):
        decision = decide(SOURCE, [snapshot(1), lost], there, TARGET, wish)
        assert decision.newly_committed == decision.obsolete == ()


def test_an_unfinished_transfer_is_resumed() -> None:
    pending = snapshot(2, committed=False)
    there = replica(snapshot(1), staging=staging_of(pending, snapshot(1)))
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, Wish())
    assert (decision.mode, decision.pending, decision.base) == (Mode.RESUME, pending, snapshot(1))
    assert decision.obsolete == ()


def test_an_unfinished_first_transfer_is_resumed() -> None:
    pending = snapshot(1, committed=False)
    there = replace(ABSENT, staging=staging_of(pending))
    decision = decide(SOURCE, [pending], there, TARGET, Wish())
    assert (decision.mode, decision.pending, decision.base) == (Mode.RESUME, pending, None)


def test_what_was_committed_is_not_gone_on_with() -> None:
    """A crash after the commit point left its staging behind: the good snapshot is not resent."""
    committed = snapshot(1, committed=False)
    there = replica(snapshot(1), staging=staging_of(committed))
    decision = decide(SOURCE, [committed], there, TARGET, Wish())
    assert (decision.mode, decision.newly_committed) == (Mode.INCREMENTAL, (committed,))


def test_a_pending_snapshot_that_nobody_continues_is_removed() -> None:
    pending = snapshot(2, committed=False)
    orphan = snapshot(9, lineage=OTHER, committed=False)
    elsewhere = snapshot(8, lineage=OTHER, committed=False, target="tls://other:8733/vg/lv")
    decision = decide(
        SOURCE, [snapshot(1), pending, orphan, elsewhere], replica(snapshot(1)), TARGET, Wish()
    )
    assert decision.obsolete == (pending, orphan)
    assert decision.mode is Mode.INCREMENTAL


@pytest.mark.parametrize(
    "staging",
    [
        staging_of(snapshot(7, committed=False), snapshot(1)),
        staging_of(snapshot(2, committed=False), snapshot(5)),
        staging_of(snapshot(2, lineage=OTHER, committed=False), snapshot(1)),
    ],
)
def test_staging_that_does_not_fit_is_not_resumed(staging: StagingInfo) -> None:
    pending = snapshot(2, committed=False)
    decision = decide(
        SOURCE, [snapshot(1), pending], replica(snapshot(1), staging=staging), TARGET, Wish()
    )
    assert decision.mode is Mode.INCREMENTAL
    assert pending in decision.obsolete


def test_a_resume_whose_base_is_gone_here_is_not_tried() -> None:
    pending = snapshot(2, committed=False)
    there = replica(snapshot(1), staging=staging_of(pending, snapshot(1)))
    with pytest.raises(DivergedError):
        decide(SOURCE, [pending], there, TARGET, Wish())


def test_a_replica_of_another_origin_is_refused_with_both_lineages() -> None:
    with pytest.raises(DivergedError, match="another origin") as caught:
        decide(SOURCE, [snapshot(1, lineage=OTHER)], replica(snapshot(4)), TARGET, Wish())
    assert "#4" in caught.value.what
    assert "#1" in caught.value.what


def test_a_base_that_is_gone_at_one_end_is_refused() -> None:
    with pytest.raises(DivergedError, match="gone at one end"):
        decide(SOURCE, [snapshot(1)], replica(snapshot(2)), TARGET, Wish())


def test_a_newer_base_at_the_target_is_never_rolled_back_silently() -> None:
    with pytest.raises(DivergedError):
        decide(SOURCE, [snapshot(1)], replica(snapshot(1), snapshot(2)), TARGET, Wish())


def test_a_drifted_replica_is_refused() -> None:
    there = replace(replica(snapshot(1)), drifted=True)
    with pytest.raises(DivergedError, match="written to"):
        decide(SOURCE, [snapshot(1)], there, TARGET, Wish())
    assert decide(SOURCE, [snapshot(1)], there, TARGET, Wish(adopt=True)).mode is Mode.ADOPT


def test_a_foreign_volume_needs_adopt() -> None:
    with pytest.raises(VolumeError, match="not made by blockrep"):
        decide(SOURCE, [], FOREIGN, TARGET, Wish())
    with pytest.raises(VolumeError, match="not made by blockrep"):
        decide(SOURCE, [], FOREIGN, TARGET, Wish(full=True))
    decision = decide(SOURCE, [], FOREIGN, TARGET, Wish(adopt=True))
    assert (decision.mode, decision.lineage) == (Mode.ADOPT, "")


@pytest.mark.parametrize(
    ("wish", "mode"), [(Wish(full=True), Mode.FULL), (Wish(adopt=True), Mode.ADOPT)]
)
def test_wishes_keep_a_known_lineage_and_found_a_new_one_otherwise(wish: Wish, mode: Mode) -> None:
    known = decide(SOURCE, [snapshot(1)], replica(snapshot(2)), TARGET, wish)
    assert (known.mode, known.lineage, known.sequence) == (mode, LINEAGE, 3)
    unknown = decide(SOURCE, [], replica(snapshot(2)), TARGET, wish)
    assert (unknown.mode, unknown.lineage, unknown.sequence) == (mode, "", 3)


def test_the_same_volume_at_both_ends_is_refused() -> None:
    there = replace(replica(snapshot(1)), info=SOURCE)
    with pytest.raises(VolumeError, match="same volume"):
        decide(SOURCE, [], there, TARGET, Wish(adopt=True))


def test_shrinking_needs_consent() -> None:
    small = replace(SOURCE, size_bytes=1 << 20)
    with pytest.raises(VolumeError, match="--shrink"):
        decide(small, [snapshot(1)], replica(snapshot(1)), TARGET, Wish())
    assert decide(small, [snapshot(1)], replica(snapshot(1)), TARGET, Wish(shrink=True)).base


def test_an_owned_replica_without_snapshots_is_refused_unless_told() -> None:
    with pytest.raises(DivergedError):
        decide(SOURCE, [], replica(), TARGET, Wish())
    assert decide(SOURCE, [], replica(), TARGET, Wish(full=True)).mode is Mode.FULL


def test_evidence_names_the_newest_three() -> None:
    assert describe_lineage([]) == "none"
    text = describe_lineage([snapshot(number) for number in (1, 2, 3, 4)])
    assert [f"#{number}" in text for number in (1, 2, 3, 4)] == [False, True, True, True]


FULL = Wish(full=True)


@pytest.mark.parametrize(
    "there",
    [
        lambda staging: replace(ABSENT, staging=staging),
        lambda staging: replica(snapshot(1), staging=staging),
        lambda staging: replace(replica(snapshot(1), staging=staging), drifted=True),
        lambda staging: replica(snapshot(1, lineage=OTHER), lineage=OTHER, staging=staging),
    ],
    ids=["first", "over good snapshots", "over a drifted replica", "over another origin"],
)
def test_an_unfinished_full_transfer_is_resumed_by_full(
    there: Callable[[StagingInfo], Replica],
) -> None:
    """Else it would start over with every connection that is lost."""
    pending = snapshot(2, committed=False)
    decision = decide(SOURCE, [snapshot(1), pending], there(staging_of(pending)), TARGET, FULL)
    assert (decision.mode, decision.pending, decision.base) == (Mode.RESUME, pending, None)
    assert decision.obsolete == ()


def test_full_does_not_go_on_with_an_incremental_transfer() -> None:
    pending = snapshot(2, committed=False)
    there = replica(snapshot(1), staging=staging_of(pending, snapshot(1)))
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, FULL)
    assert (decision.mode, decision.pending) == (Mode.FULL, None)
    assert decision.obsolete == (pending,)


def test_full_does_not_go_on_for_another_target() -> None:
    pending = snapshot(2, committed=False, target="tls://else:1/vg/lv")
    there = replica(snapshot(1), staging=staging_of(pending))
    assert decide(SOURCE, [snapshot(1), pending], there, TARGET, FULL).mode is Mode.FULL


@pytest.mark.parametrize("wish", [FULL, Wish(adopt=True)], ids=["full", "adopt"])
def test_what_an_attempt_before_has_done_is_not_done_again(wish: Wish) -> None:
    lost = snapshot(2, committed=False)
    there = replica(snapshot(1), replace(lost, committed=True))
    again = replace(wish, satisfied_by=lost.id)
    decision = decide(SOURCE, [snapshot(1), lost], there, TARGET, again)
    assert (decision.mode, decision.base) == (Mode.INCREMENTAL, lost)
    other = replace(wish, satisfied_by=snapshot(3).id)
    decision = decide(SOURCE, [snapshot(1), lost], there, TARGET, other)
    assert decision.mode in {Mode.FULL, Mode.ADOPT}


PLAIN_PULL = Wish(finish_full=False)


def test_an_unfinished_full_transfer_is_finished_by_who_did_not_ask_for_it_if_he_may() -> None:
    pending = snapshot(2, committed=False)
    there = replica(snapshot(1), staging=staging_of(pending))
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, Wish())
    assert (decision.mode, decision.pending) == (Mode.RESUME, pending)
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, PLAIN_PULL)
    assert (decision.mode, decision.base) == (Mode.INCREMENTAL, snapshot(1))
    assert decision.obsolete == (pending,)


def test_what_gives_up_no_good_snapshot_is_finished_in_any_case() -> None:
    pending = snapshot(1, committed=False)
    there = replace(ABSENT, staging=staging_of(pending))
    assert decide(SOURCE, [pending], there, TARGET, PLAIN_PULL).mode is Mode.RESUME
    pending = snapshot(2, committed=False)
    there = replica(snapshot(1), staging=staging_of(pending, snapshot(1)))
    assert decide(SOURCE, [snapshot(1), pending], there, TARGET, PLAIN_PULL).mode is Mode.RESUME


@pytest.mark.parametrize("base", [None, snapshot(1)], ids=["full", "incremental"])
def test_a_smaller_snapshot_is_gone_on_with_only_by_who_may_shrink(base: Snapshot | None) -> None:
    pending = replace(snapshot(2, committed=False), size_bytes=1 << 20)
    there = replica(snapshot(1), staging=staging_of(pending, base))
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, Wish())
    assert (decision.mode, decision.obsolete) == (Mode.INCREMENTAL, (pending,))
    decision = decide(SOURCE, [snapshot(1), pending], there, TARGET, Wish(shrink=True))
    assert (decision.mode, decision.pending) == (Mode.RESUME, pending)
    still_small = replace(SOURCE, size_bytes=1 << 20)
    with pytest.raises(VolumeError, match="--shrink"):
        decide(still_small, [snapshot(1), pending], there, TARGET, Wish())


def test_what_was_done_leaves_what_it_was_done_with() -> None:
    wish = Wish(full=True, shrink=True, satisfied_by="a" * 32, finish_full=False)
    assert wish.done() == Wish(shrink=True, finish_full=False)
