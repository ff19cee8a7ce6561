"""Default deny: nobody reaches a volume that no rule gives to that client, whatever the name looks
like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.config.access import (
    DEFAULT_OPERATIONS,
    OPERATIONS,
    AccessPolicy,
    TargetRule,
    check_pattern,
)
from blockrep.model.names import VolumeName
from blockrep.storage.image.sidecar import DIRECTORY_NAME
from blockrep.storage.lvm.tags import Role, lv_name

IMAGES = Path("/srv/images")
OPEN = AccessPolicy(None, IMAGES)
HOSTILE = [
    "", "vg", "vg/", "/", "-rf", "--/x", "@tag", "vg/@tag", "vg/lv/x", "../x", "vg/..", "./..",
    "vg/lv\n", "vg/lv\0", "vg/lv --force", "vg/$(id)", "x" * 4096, "vg/lv_tmeta", "/srv/images",
    "/srv/images/", "/srv/images/../x", "/srv/images/./../../etc/passwd", "/srv/imagesx/a",
    "/etc/passwd", "/dev/sda", "./../x", "./a/../../x", "./.", ".",
]  # fmt: skip


@pytest.mark.parametrize("operation", DEFAULT_OPERATIONS)
def test_without_rules_any_client_has_the_logical_volumes(operation: str) -> None:
    grant = OPEN.permit("origin", "vgreplica/thinv_replica", operation)
    assert grant is not None
    assert grant.volume == VolumeName(vg="vgreplica", lv="thinv_replica")
    assert grant.create
    assert grant.adopt
    assert grant.keep == 3


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - set(DEFAULT_OPERATIONS)))
def test_reading_and_dropping_need_a_rule(operation: str) -> None:
    # There is nothing like --adopt that would protect what was never blockrep's.
    assert OPEN.permit("origin", "vgreplica/thinv_replica", operation) is None


def test_without_rules_paths_need_an_image_directory() -> None:
    assert AccessPolicy(None, None).authorize("origin", "/srv/images/a.img", "push") is None
    for name in ("/srv/images/a.img", "./a.img"):
        grant = OPEN.authorize("origin", name, "push")
        assert grant is not None
        assert grant.volume.path == "/srv/images/a.img"
        assert grant.beneath == IMAGES


@pytest.mark.parametrize("requested", HOSTILE)
def test_hostile_names_are_nothing_with_and_without_rules(requested: str) -> None:
    rules = (TargetRule("vg/*", "vgreplica/*"), TargetRule("/srv/images/*", "/srv/images/*"))
    for policy in (OPEN, AccessPolicy({"origin": rules}, IMAGES)):
        for operation in OPERATIONS:
            assert policy.permit("origin", requested, operation) is None


@pytest.mark.parametrize("operation", ["", "format", "PUSH", "push ", "push,list"])
def test_operations_that_do_not_exist_are_not_allowed(operation: str) -> None:
    assert OPEN.authorize("origin", "vg/lv", operation) is None


def test_somebody_without_a_name_is_nobody() -> None:
    assert OPEN.authorize("", "vg/lv", "list") is None


MATRIX = AccessPolicy(
    {
        "alpha": (
            TargetRule(
                "vg/a",
                "vg/a",
                frozenset({"push", "list"}),
                create=False,
                keep=9,
                keep_min=2,
                quota_bytes=1 << 30,
                rate_bytes_per_second=1 << 20,
            ),
            TargetRule("mine/*", "vgreplica/alpha-*", adopt=True),
        ),
        "beta": (TargetRule("/backup/*", "/srv/beta/*", frozenset({"verify"})),),
        "gamma": (),
    },
    IMAGES,
)


@pytest.mark.parametrize(
    ("identity", "requested", "operation", "volume"),
    [
        ("alpha", "vg/a", "push", "vg/a"),
        ("alpha", "vg/a", "list", "vg/a"),
        ("alpha", "vg/a", "verify", None),
        ("alpha", "vg/b", "push", None),
        ("alpha", "vg/aa", "push", None),
        ("alpha", "mine/x", "verify", "vgreplica/alpha-x"),
        ("alpha", "mine/x_tmeta", "verify", None),
        ("alpha", "vgreplica/alpha-x", "push", None),
        ("alpha", "/backup/x", "verify", None),
        ("alpha", "/srv/images/x", "push", None),
        ("beta", "/backup/x", "verify", "/srv/beta/x"),
        ("beta", "/backup/x", "push", None),
        ("beta", "/backup/x/y", "verify", None),
        ("beta", "/backup/..", "verify", None),
        ("beta", "/backup/.", "verify", None),
        ("beta", "vg/a", "push", None),
        ("gamma", "vg/a", "push", None),
        ("delta", "vg/a", "push", None),
        ("Alpha", "vg/a", "push", None),
    ],
)
def test_rules_give_what_they_name_and_nothing_else(
    identity: str, requested: str, operation: str, volume: str | None
) -> None:
    grant = MATRIX.authorize(identity, requested, operation)
    assert (None if grant is None else str(grant.volume)) == volume


def test_a_grant_carries_what_its_rule_says() -> None:
    grant = MATRIX.authorize("alpha", "vg/a", "push")
    assert grant is not None
    assert (grant.create, grant.adopt, grant.keep, grant.keep_min) == (False, False, 9, 2)
    assert (grant.quota_bytes, grant.rate_bytes_per_second, grant.rule) == (
        1 << 30,
        1 << 20,
        "vg/a",
    )
    grant = MATRIX.authorize("alpha", "mine/x", "push")
    assert grant is not None
    assert (grant.create, grant.adopt, grant.keep, grant.keep_min) == (True, True, 3, 1)
    assert (grant.quota_bytes, grant.rate_bytes_per_second) == (0, 0), "no limit"


@pytest.mark.parametrize("operation", ["pull", "prune"])
def test_what_takes_data_away_is_not_allowed_unless_a_rule_says_so(operation: str) -> None:
    assert MATRIX.authorize("alpha", "mine/x", operation) is None
    policy = AccessPolicy({"a": (TargetRule("v/l", "v/l", frozenset({operation})),)}, None)
    assert policy.authorize("a", "v/l", operation) is not None
    assert policy.authorize("a", "v/l", "push") is None


def test_who_is_known_is_who_may_do_anything() -> None:
    known = {one for one in ("alpha", "beta", "gamma", "delta", "") if MATRIX.knows(one)}
    assert known == {"alpha", "beta"}
    assert OPEN.knows("anybody")


@given(st.text(max_size=60))
def test_a_rule_never_leads_out_of_its_folder(requested: str) -> None:
    for name in (requested, f"/backup/{requested}", f"/srv/images/{requested}", f"./{requested}"):
        for policy, identity in ((MATRIX, "beta"), (OPEN, "origin")):
            grant = policy.authorize(identity, name, "verify")
            if grant is not None and not grant.volume.is_lvm:
                path = Path(grant.volume.path)
                assert grant.beneath in path.parents
                assert ".." not in path.parts


def test_symbolic_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    images, outside = tmp_path / "images", tmp_path / "outside"
    (images / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.img").touch()
    (images / "link.img").symlink_to(outside / "secret.img")
    (images / "dangling.img").symlink_to(outside / "new.img")
    (images / "folder").symlink_to(outside)
    (images / "inside").symlink_to(images / "deep")
    (images / "loop").symlink_to(images / "loop")
    policy = AccessPolicy(None, images)
    refused = ("link.img", "dangling.img", "folder/secret.img", "folder/new.img", "loop", "loop/x")
    for name in refused:
        assert policy.permit("origin", f"./{name}", "push") is None, name
    for name in ("new.img", "deep/new.img", "inside/new.img"):
        assert policy.permit("origin", f"./{name}", "push") is not None, name


def test_the_folder_itself_may_be_behind_a_link(tmp_path: Path) -> None:
    # That link is the administrator's own choice.
    (tmp_path / "real").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "real")
    policy = AccessPolicy(None, tmp_path / "images")
    assert policy.permit("origin", "./a.img", "push") is not None


def own_names() -> list[str]:
    lvs = [lv_name(role, "a" * 32, 7, "b" * 32) for role in (Role.SOURCE, Role.STAGING, Role.GOOD)]
    paths = [
        f"{DIRECTORY_NAME}/x.img/target/{'c' * 32}.img",
        f"deep/{DIRECTORY_NAME}/x",
        DIRECTORY_NAME,
    ]
    return [f"vgreplica/{lv}" for lv in lvs] + [f"/srv/images/{path}" for path in paths]


@pytest.mark.parametrize("name", own_names())
def test_what_blockrep_keeps_for_itself_is_nobodys_target(name: str) -> None:
    policy = AccessPolicy(
        {
            "a": (
                TargetRule("vgreplica/*", "vgreplica/*"),
                TargetRule("/srv/images/*", "/srv/images/*"),
            )
        },
        None,
    )
    for operation in OPERATIONS:
        assert OPEN.authorize("a", name, operation) is None
        assert policy.authorize("a", name, operation) is None
    with pytest.raises(ValueError, match="keeps for itself"):
        check_pattern(name)


def test_names_that_only_look_like_ours_are_targets() -> None:
    for name in ("vg/br_data", "vg/br_g", "br_g_x/lv", "/srv/images/a.blockrep"):
        assert OPEN.authorize("a", name, "push") is not None, name


@pytest.mark.parametrize(
    "text", ["vg/lv", "vg/*", "*/lv", "vg/a-*", "/srv/*", "/srv/a-*.img", "/srv/a"]
)
def test_patterns(text: str) -> None:
    assert check_pattern(text) == text


@pytest.mark.parametrize(
    "text", ["*", "vg/**", "*/*", "./a", "/a/../*", "/*/a", "@t/*", "vg", "vg/*_tmeta"]
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_pattern(text)


@pytest.mark.parametrize("text", ["vm.img", "./vm.img"])
def test_a_rule_is_advised_to_have_an_absolute_path(text: str) -> None:
    with pytest.raises(ValueError, match="an absolute path") as refused:
        check_pattern(text)
    assert "starts with" not in str(refused.value)
