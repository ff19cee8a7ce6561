"""The virtual machines do what the tests that use them rely on."""

from __future__ import annotations

import signal

import pytest

from vm.harness.errors import CommandFailedError, HarnessError, MachineStoppedError
from vm.harness.groups import Groups, MakeGroups
from vm.harness.link import Direction
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

PING = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "replica"]


def test_commands_report_output_and_status(pair: Pair) -> None:
    done = pair.origin.run("echo out; echo err >&2; exit 3", timeout_seconds=10, check=False)
    assert (done.stdout, done.stderr, done.rc) == ("out\n", "err\n", 3)
    with pytest.raises(CommandFailedError, match="status 3"):
        pair.origin.run("exit 3", timeout_seconds=10)
    with pytest.raises(HarnessError, match="no-such-program"):
        pair.origin.run(["no-such-program"], timeout_seconds=10)


def test_large_output_and_input_arrive_whole(pair: Pair) -> None:
    data = bytes(range(256)) * 4096
    done = pair.origin.run(["sha256sum"], stdin=data, timeout_seconds=30)
    pair.origin.write_file("/root/data", data)
    assert pair.origin.run("sha256sum <data", timeout_seconds=30).stdout == done.stdout
    assert pair.origin.read_file("/root/data") == data
    text = pair.origin.run("seq 200000", timeout_seconds=30).stdout
    assert len(text.splitlines()) == 200_000


def test_a_command_can_be_stopped_by_another_while_it_runs(pair: Pair) -> None:
    waiting = pair.origin.spawn("echo started; exec sleep 1000")
    waiting.wait_for_output("started", timeout_seconds=10)
    pair.origin.run(["pkill", "-KILL", "sleep"], timeout_seconds=10)
    assert waiting.wait(timeout_seconds=10).rc == -signal.SIGKILL

    with pytest.raises(TimeoutError):
        pair.origin.run("exec sleep 1001", timeout_seconds=0.5)
    pair.origin.end_commands()
    listed = pair.origin.run("pgrep -x sleep", timeout_seconds=10, check=False)
    assert listed.rc == 1, "a command outlived its time limit"


def test_blockrep_and_its_dependencies_are_there(pair: Pair) -> None:
    modules = "asyncssh, blockrep, cryptography, msgpack, uvloop, xxhash, zstandard"
    for machine in pair.machines:
        machine.run(["python3", "-c", f"import {modules}"], timeout_seconds=60)
        machine.run("command -v blockrep blockrep-server", timeout_seconds=10)


def test_both_reach_each_other_and_a_cut_is_noticed(pair: Pair) -> None:
    pair.origin.run(PING, timeout_seconds=20)
    assert pair.link.counters(Direction.FORTH).passed_bytes > 3 * 64
    assert pair.link.counters(Direction.BACK).passed_bytes > 3 * 64

    pair.link.cut()
    assert pair.origin.run(PING, timeout_seconds=20, check=False).rc != 0
    pair.link.restore()
    pair.origin.run(PING, timeout_seconds=20)


def test_half_open_passes_one_direction_only(pair: Pair) -> None:
    pair.origin.run(PING, timeout_seconds=20)
    pair.link.reset_counters()
    pair.link.cut(Direction.BACK)
    assert pair.origin.run(PING, timeout_seconds=20, check=False).rc != 0
    assert pair.link.counters(Direction.FORTH).passed_bytes > 3 * 64
    assert pair.link.counters(Direction.BACK).swallowed_frames >= 3
    assert pair.link.counters(Direction.BACK).passed_bytes == 0


def test_what_a_stall_holds_arrives_later(pair: Pair) -> None:
    pair.origin.run(PING, timeout_seconds=20)
    pair.link.stall(Direction.FORTH)
    ping = pair.origin.spawn(["ping", "-n", "-c", "3", "-W", "60", "replica"])
    pair.link.wait(Direction.FORTH, lambda seen: seen.held_frames >= 3, 30)
    assert "bytes from" not in ping.stdout
    pair.link.restore()
    assert "3 received" in ping.wait(60).check().stdout


def test_cut_after_stops_a_transfer_on_its_way(pair: Pair) -> None:
    receiver = (
        "import socket; s = socket.create_server(('', 7000)); print('listening', flush=True);"
        " c = s.accept()[0]; c.settimeout(5); n = 0\n"
        "try:\n"
        "    while data := c.recv(65536): n += len(data)\n"
        "except TimeoutError: pass\n"
        "print('received', n)"
    )
    listening = pair.replica.spawn(["python3", "-u", "-c", receiver])
    listening.wait_for_output("listening", timeout_seconds=30)
    pair.link.reset_counters()
    pair.link.cut_after(2 * MIB, Direction.FORTH)
    sending = pair.origin.spawn(["bash", "-c", "exec cat /dev/zero >/dev/tcp/replica/7000"])
    received = listening.wait_for_output(r"received (\d+)", timeout_seconds=60)
    assert MIB < int(received[1]) < 2 * MIB
    assert pair.link.is_cut(Direction.FORTH)
    assert not pair.link.is_cut(Direction.BACK)
    sending.kill()


def test_corruption_passes_the_checksums_of_tcp(pair: Pair) -> None:
    script = (
        "import hashlib, socket; s = socket.create_server(('', 7001)); print('listening');"
        " c = s.accept()[0]; h = hashlib.sha256()\n"
        "while data := c.recv(65536): h.update(data)\n"
        "print('digest', h.hexdigest())"
    )
    listening = pair.replica.spawn(["python3", "-u", "-c", script])
    listening.wait_for_output("listening", timeout_seconds=30)
    pair.link.set_faults(Direction.FORTH, corrupt_rate=0.05)
    send = "head -c 1M /dev/urandom >data; cat data >/dev/tcp/replica/7001; sha256sum data"
    sent = pair.origin.run(["bash", "-c", send], timeout_seconds=60).stdout.split()[0]
    received = listening.wait_for_output("digest (.*)", timeout_seconds=60)[1]
    assert pair.link.counters(Direction.FORTH).corrupted_frames > 0
    assert received != sent


def test_losses_are_survived_by_tcp(pair: Pair) -> None:
    pair.enable_ssh()
    pair.link.set_faults(drop_rate=0.02)
    done = pair.origin.run(["ssh", "replica", "hostname"], timeout_seconds=60)
    assert done.stdout == "replica\n"


def test_each_test_has_fresh_groups_of_the_sizes_it_wants(make_groups: MakeGroups) -> None:
    groups = make_groups(
        volume_bytes=80 * MIB, source_chunk_bytes=128 * 1024, target_chunk_bytes=256 * 1024
    )
    assert groups.thin_volume.full_name == "volg/thin_volume"
    assert groups.source_pool.volumes()["thin_volume"]["lv_size"] == str(80 * MIB)
    assert not groups.replica_volume.exists()
    table = groups.target_pool.create_volume("other", 8 * MIB).pool.machine.run(
        ["dmsetup", "table", groups.target_pool.device], timeout_seconds=10
    )
    assert table.stdout.split()[5] == str(256 * 1024 // 512)
    assert " thin-pool " in groups.source_pool.status()


def test_volumes_in_use_do_not_survive_the_test(groups: Groups, pair: Pair) -> None:
    volume = groups.thin_volume
    pair.origin.run(f"mkfs.ext4 -q {volume.path} && mount {volume.path} /mnt", timeout_seconds=60)
    using = pair.origin.spawn("cd /mnt && echo there && exec sleep 1000")
    using.wait_for_output("there", timeout_seconds=10)
    pair.reset()
    assert pair.origin.run("dmsetup ls", timeout_seconds=10).stdout == "No devices found\n"
    assert pair.origin.run("vgs", timeout_seconds=10).stdout == ""


def test_a_machine_that_hangs_does_not_spoil_the_next_test(make_groups: MakeGroups) -> None:
    # A full pool that queues holds its writers in the kernel for a minute: nothing kills them.
    groups = make_groups(volume_bytes=64 * MIB, source_pool_bytes=8 * MIB)
    volume, machine = groups.thin_volume, groups.source_pool.machine
    writing = machine.spawn(f"exec dd if=/dev/zero of={volume.path} bs=1M oflag=direct")
    full = f"until dmsetup status {groups.source_pool.device} | grep -q out_of_data; do :; done"
    machine.run(full, timeout_seconds=60)
    assert writing.running
    make_groups.pair.reset()
    assert machine.run("vgs", timeout_seconds=10).stdout == ""


def test_disks_outlive_the_machine(groups: Groups, pair: Pair) -> None:
    empty = groups.thin_volume.digest()
    groups.thin_volume.write_random(3 * MIB, 2 * MIB)
    assert groups.thin_volume.digest() != empty
    groups.thin_volume.write(7 * MIB + 512, b"left by hand")
    before = groups.thin_volume.digest()
    waiting = pair.origin.spawn("exec sleep 1000")

    pair.origin.kill()
    with pytest.raises(MachineStoppedError):
        waiting.wait(timeout_seconds=10)
    with pytest.raises(MachineStoppedError):
        pair.origin.run("true", timeout_seconds=10)
    pair.replica.run("true", timeout_seconds=10)

    pair.origin.boot()
    pair.origin.run("vgchange -ay volg", timeout_seconds=30)
    assert groups.thin_volume.digest() == before
    pair.origin.run(PING, timeout_seconds=20)


def test_a_paused_machine_is_silent_but_not_gone(pair: Pair) -> None:
    pair.replica.pause()
    assert pair.origin.run(PING, timeout_seconds=20, check=False).rc != 0
    pair.replica.resume()
    pair.origin.run(PING, timeout_seconds=20)


def test_shutting_down_keeps_what_file_systems_hold(groups: Groups, pair: Pair) -> None:
    path = groups.thin_volume.path
    script = f"mkfs.ext4 -q {path} && mount {path} /mnt && echo kept >/mnt/file"
    pair.origin.run(script, timeout_seconds=60)
    pair.origin.shut_down()
    assert not pair.origin.running
    pair.origin.boot()
    script = f"vgchange -ay volg >/dev/null && mount {path} /mnt && cat /mnt/file"
    assert pair.origin.run(script, timeout_seconds=60).stdout == "kept\n"
