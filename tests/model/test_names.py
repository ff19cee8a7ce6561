"""Only names that LVM takes as names reach LVM; what users type is understood or refused (I7)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.names import (
    DEFAULT_PORT,
    TARGET_FORMS,
    VolumeName,
    parse_target,
    parse_volume,
)
from blockrep.protocol.fields import text


@pytest.mark.parametrize(
    "name",
    ["vg/lv", "volg/thin_volume", "pve/vm-100-disk-0", "a+b_c.d-e/9.x", f"{'v' * 127}/{'l' * 100}"],
)
def test_logical_volumes(name: str) -> None:
    volume = parse_volume(name)
    assert volume.is_lvm
    assert (f"{volume.vg}/{volume.lv}", str(volume)) == (name, name)


@pytest.mark.parametrize(
    "name", ["/srv/vm.img", "./vm.img", "../x", "/größe", "/with space", "/.x"]
)
def test_paths(name: str) -> None:
    volume = parse_volume(name)
    assert (volume.is_lvm, volume.path, str(volume)) == (False, name, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "vg",
        "vg/",
        "/",
        "vg/lv/x",
        "vg//lv",
        "vg/.",
        "vg/..",
        "-rf",
        "--",
        "-vg/lv",
        "vg/-lv",
        "@tag",
        "@tag/lv",
        "vg/@tag",
        "vg/lv\n",
        "vg\n/lv",
        "\nvg/lv",
        "vg/l v",
        "vg/lv;reboot",
        "vg/$(id)",
        "vg/lv\x00",
        "vg/l\u202ev",
        "vg/größe",
        "٣/٣",
        "v" * 128 + "/lv",
        "vg/" + "l" * 101,
        "vg/" + "l" * 4096,
        "x" * 4096,
        ".",
        "..",
        "/.",
        "/..",
        "./",
        "/srv/..",
        "/srv/",
        "/srv/a\nb",
        "/srv/\udcff",
        "/srv/\x9b31m",
        "/" + "x" * 4096,
        "/" + "é" * 2048,
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_volume(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("prefix", ["snapshot", "pvmove"])
def test_prefixes_that_lvm_reserves(prefix: str) -> None:
    for lv in (prefix, f"{prefix}0"):
        with pytest.raises(ValueError, match="reserves"):
            parse_volume(f"vg/{lv}")
    assert parse_volume(f"{prefix}/my_{prefix}").is_lvm


@pytest.mark.parametrize(
    "infix",
    # lvm(8), VALID NAMES
    [
        "_cdata",
        "_cmeta",
        "_corig",
        "_iorig",
        "_mimage",
        "_mlog",
        "_pmspare",
        "_rimage",
        "_rmeta",
        "_tdata",
        "_tmeta",
        "_vdata",
        "_vorigin",
        "_wcorig",
    ],
)
def test_infixes_that_lvm_reserves(infix: str) -> None:
    for lv in (infix, f"pool{infix}", f"pool{infix}_0"):
        with pytest.raises(ValueError, match="reserves"):
            parse_volume(f"vg/{lv}")


@given(st.text(max_size=40) | st.text("vg/.-@_:[]\n", max_size=12))
def test_whatever_is_taken_can_travel_and_comes_back_the_same(name: str) -> None:
    try:
        volume = parse_volume(name)
    except ValueError:
        return
    assert str(volume) == name
    assert text(4096).encode(name) == name
    assert not name.startswith(("-", "@"))


@pytest.mark.parametrize(
    ("typed", "host", "port", "volume"),
    [
        ("replica:vg/lv", "replica", DEFAULT_PORT, "vg/lv"),
        ("replica.example.org:/srv/vm.img", "replica.example.org", DEFAULT_PORT, "/srv/vm.img"),
        ("replica:./vm.img", "replica", DEFAULT_PORT, "./vm.img"),
        ("192.0.2.7:vg/lv", "192.0.2.7", DEFAULT_PORT, "vg/lv"),
        ("[2001:db8::7]:vg/lv", "2001:db8::7", DEFAULT_PORT, "vg/lv"),
        ("tls://replica:1/vg/lv", "replica", 1, "vg/lv"),
        ("tls://replica:65535//srv/vm.img", "replica", 65535, "/srv/vm.img"),
        ("tls://replica/vg/lv", "replica", DEFAULT_PORT, "vg/lv"),
        ("tls://[::1]:8733/vg/lv", "::1", 8733, "vg/lv"),
    ],
)
def test_targets(typed: str, host: str, port: int, volume: str) -> None:
    target = parse_target(typed)
    assert (target.scheme, target.host, target.port) == ("tls", host, port)
    assert target.volume == parse_volume(volume)
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("typed", "user", "host", "port", "volume"),
    [
        ("ssh://replica/vg/lv", "", "replica", 0, "vg/lv"),
        ("ssh://root@replica/vgreplica/thinv_replica", "root", "replica", 0,
         "vgreplica/thinv_replica"),
        ("ssh://root@replica:2222//srv/vm.img", "root", "replica", 2222, "/srv/vm.img"),
        ("ssh://a.b-c@[::1]:22/./vm@home.img", "a.b-c", "::1", 22, "./vm@home.img"),
        ("ssh://replica/./vm@home.img", "", "replica", 0, "./vm@home.img"),
        ("ssh://user@domain@replica/vg/lv", "user@domain", "replica", 0, "vg/lv"),
    ],
)  # fmt: skip
def test_ssh_targets(typed: str, user: str, host: str, port: int, volume: str) -> None:
    target = parse_target(typed)
    found = (target.scheme, target.user, target.host, target.port, str(target.volume))
    assert found == ("ssh", user, host, port, volume)
    assert parse_target(str(target)) == target
    assert str(target) == typed


def test_the_forms_that_people_are_shown_are_targets() -> None:
    forms = re.findall(r"\S*HOST\S*", re.sub(r"[\[\],]", "", TARGET_FORMS))
    assert len(forms) == 4
    for form in forms:
        shown = form.replace("PORT", "99").replace("USER", "root")
        assert parse_target(shown).host == "HOST"
        if "://" in shown:
            path = shown.replace("/VG/LV", "//path")
            assert parse_target(path).volume == VolumeName(path="/path")


def test_the_default_port_can_be_another() -> None:
    assert (
        parse_target("replica:vg/lv", 99).port == parse_target("tls://replica/vg/lv", 99).port == 99
    )


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "names no host"),
        ("vg/lv", "is not a target"),
        ("replica", "is not a target"),
        (":vg/lv", "names no host"),
        ("-oProxyCommand=x:vg/lv", "names no host"),
        ("re plica:vg/lv", "is not a target"),
        ("replica:", "neither VG/LV nor a path"),
        ("replica:-rf", "neither VG/LV nor a path"),
        ("replica:@tag", "neither VG/LV nor a path"),
        ("replica:vg/lv\n", "control character"),
        ("http://replica/vg/lv", "not a known way"),
        ("tls://", "names no host"),
        ("tls://replica", "names no volume"),
        ("tls://replica:1", "names no volume"),
        ("tls://replica:/vg/lv", "is not a port"),
        ("tls://replica:0/vg/lv", "is not a port"),
        ("tls://replica:65536/vg/lv", "is not a port"),
        ("tls://replica:٣/vg/lv", "is not a port"),
        ("tls://replica:99999999999/vg/lv", "is not a port"),
        ("tls://user@replica/vg/lv", "is not a port"),
        ("tls://replica/", "neither VG/LV nor a path"),
        ("ssh://-oProxyCommand=x@replica/vg/lv", "is not the name of a user"),
        ("ssh://-oProxyCommand=x/vg/lv", "names no host"),
        ("ssh://@replica/vg/lv", "is not the name of a user"),
        ("ssh://a b@replica/vg/lv", "is not the name of a user"),
        ("ssh://root@/vg/lv", "names no host"),
        ("ssh://root@replica", "names no volume"),
        ("ssh://root@replica:x/vg/lv", "is not a port"),
    ],
)
def test_what_is_no_target_is_refused(typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_target(typed)
    assert str(caught.value).isprintable()


def test_a_volume_is_a_path_or_a_logical_volume() -> None:
    assert VolumeName(vg="vg", lv="lv").is_lvm
    assert not VolumeName(path="/x").is_lvm
