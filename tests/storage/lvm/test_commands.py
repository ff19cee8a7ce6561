"""No argument list can select more than the one volume that is meant (trap 7)."""

from __future__ import annotations

import pytest

from blockrep.errors import InternalError
from blockrep.storage.lvm import commands

BAD = ["", "..", ".", "-rf", "@tag", "a b", "a/b", "a\n", "snapshot1", "x_tmeta", "ä", "a" * 101]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_name_reaches_no_command(name: str) -> None:
    for make in (
        lambda: commands.activate("vg", name),
        lambda: commands.deactivate("vg", name),
        lambda: commands.merge("vg", name),
        lambda: commands.rename("vg", "old", name),
        lambda: commands.remove("vg", name, "uuid", "blockrep.role=good"),
        lambda: commands.change_tags("vg", name, ["blockrep"]),
        lambda: commands.create_snapshot("vg", "origin", name, [], writable=False),
        lambda: commands.create_volume("vg", "pool", name, 512, []),
        lambda: commands.dm_name("vg", name),
    ):
        with pytest.raises(InternalError, match="not a name for LVM"):
            make()


@pytest.mark.parametrize("vg", ["", "-x", "@tag", "vg/lv", "a b", "vg\0"])
def test_what_is_no_group_reaches_no_command(vg: str) -> None:
    with pytest.raises(InternalError):
        commands.list_volumes(vg)


def test_a_removal_names_uuid_and_tags() -> None:
    argv = commands.remove("vg", "br_g_1", "AbC-1", "blockrep.role=good")
    assert argv[0] == "lvremove"
    assert argv[-1] == "vg/br_g_1"
    selection = argv[argv.index("-S") + 1]
    assert selection == 'lv_uuid=AbC-1 && lv_tags={"blockrep" && "blockrep.role=good"}'


def test_a_snapshot_has_no_size_and_is_thin() -> None:
    argv = commands.create_snapshot("vg", "lv", "br_s_1", ["blockrep"], writable=False)
    assert "-L" not in argv
    assert {"-s", "-pr", "-ky"} <= set(argv)
    assert argv[-1] == "vg/lv"
    writable = commands.create_snapshot("vg", "lv", "br_t_1", [], writable=True)
    assert {"-kn", "-ay"} <= set(writable)


def test_sizes_are_bytes() -> None:
    assert {"--units", "b", "--nosuffix"} <= set(commands.list_volumes("vg"))
    assert "1024b" in commands.create_volume("vg", "pool", "lv", 1024, [])
    assert commands.resize("vg", "lv", 1, 2)[0] == "lvextend"
    assert commands.resize("vg", "lv", 2, 1)[:2] == ["lvreduce", "-f"]


@pytest.mark.parametrize(
    "setting", ["compact_output=0", "prefixes=0", "binary_values_as_numeric=0"]
)
def test_what_lvm_conf_sets_of_reports_is_set_back(setting: str) -> None:
    """With prefixes, say, lvs prints what is no JSON."""
    for argv in (commands.list_all(), commands.list_volumes("vg")):
        config = argv[argv.index("--config") + 1]
        assert setting in config.removeprefix("report{").removesuffix("}").split()


def test_device_mapper_doubles_hyphens() -> None:
    assert commands.dm_name("vg-a", "lv-b") == "vg--a-lv--b"
    assert commands.pool_device("vg-a", "p", "tpool") == "vg--a-p-tpool"
    assert commands.thin_delta("vg-a", "p", 1, 2)[-1] == "/dev/mapper/vg--a-p_tmeta"
    assert commands.metadata_openers("vg-a", "p")[-1] == "vg--a-p_tmeta"
    assert "--dev-id" in commands.thin_dump("vg", "p", 7)
    assert commands.reserve_metadata("vg", "p")[2] == "vg-p-tpool"
    assert commands.release_metadata("vg", "p")[-1] == "release_metadata_snap"


def test_permission_and_tags_change_in_one_transaction() -> None:
    argv = commands.read_only("vg", "lv", ["a"], ["b"])
    assert argv == ["lvchange", "-pr", "--addtag", "a", "--deltag", "b", "vg/lv"]
