"""Real processes over real TLS: pushes, interruptions at will, and what bad input gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role

from .conftest import MIB, Site


def sent(events: list[dict[str, object]]) -> int:
    return sum(int(str(one["wire_bytes"])) for one in events if one["event"] == "committed")


def kill_when_durable(process: subprocess.Popen[str], victim: int, durable_bytes: int) -> int:
    """Read events until so much is durable, then SIGKILL the victim; return what was durable."""
    assert process.stdout is not None
    durable = 0
    for line in process.stdout:
        durable = max(durable, json.loads(line).get("durable_bytes", 0))
        if durable >= durable_bytes:
            os.kill(victim, signal.SIGKILL)
            break
    return durable


def start_slow_push(site: Site, *options: str) -> subprocess.Popen[str]:
    words = ["push", str(site.source), site.target, "--json", "--bwlimit", "4M", *options]
    command = site.command(*words)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("blockrep: error: ")]
    for word in words:
        assert word in line


def test_full_then_incremental_then_nothing(site: Site) -> None:
    with site.server():
        assert sent(site.pushed()) >= 8 * MIB
        assert site.equal()
        site.change(3 * MIB, 10_000)
        assert 10_000 <= sent(site.pushed()) < 300_000
        assert site.equal()
        assert sent(site.pushed()) == 0
        assert site.run("verify", str(site.source), site.target).returncode == 0


def test_a_killed_client_resumes_and_sends_nothing_durable_again(site: Site) -> None:
    with site.server():
        with start_slow_push(site) as push:
            durable = kill_when_durable(push, push.pid, 2 * MIB)
        assert not site.replica.exists()
        events = site.pushed()
        (resumed,) = [one for one in events if one["event"] == "resumed"]
        assert resumed["done_bytes"] >= durable
        assert sent(events) <= (8 * MIB - resumed["done_bytes"]) * 1.01
        assert site.equal()


def test_a_killed_server_is_a_lost_connection_and_resumes(site: Site) -> None:
    with site.server() as server, start_slow_push(site) as push:
        durable = kill_when_durable(push, server.pid, 2 * MIB)
        assert push.stdout is not None
        told = json.loads(push.stdout.read().splitlines()[-1])
        assert push.wait(60) == 7
        assert (told["event"], told["code"]) == ("error", "connection-lost")
        assert "resumes" in told["next"]
    with site.server():
        events = site.pushed()
        (resumed,) = [one for one in events if one["event"] == "resumed"]
        assert resumed["done_bytes"] >= durable
        assert site.equal()


def test_with_retry_a_push_outlives_its_server(site: Site) -> None:
    """I4: killed, away for a while, and back at the same address: it goes on by itself."""
    with site.server() as server, start_slow_push(site, "--retry") as push:
        assert push.stdout is not None
        durable = kill_when_durable(push, server.pid, 2 * MIB)
        told = next(one for one in map(json.loads, push.stdout) if one["event"] == "retrying")
        assert "connection" in told["reason"]
        with site.server(listen=f"127.0.0.1:{site.port}"):
            events = [json.loads(line) for line in push.stdout]
            assert push.wait(60) == 0
    (resumed,) = [one for one in events if one["event"] == "resumed"]
    assert resumed["done_bytes"] >= durable
    assert events[-1]["event"] == "spent", "the end of a push that was committed"
    assert site.equal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_push_in_order(site: Site, number: signal.Signals) -> None:
    with site.server():
        with start_slow_push(site) as push:
            assert push.stdout is not None
            for line in push.stdout:
                if json.loads(line).get("durable_bytes", 0) >= MIB:
                    push.send_signal(number)
                    break
            push.stdout.read()
            assert push.wait(60) == 130
        site.pushed()
        assert site.equal()


def test_a_server_told_to_stop_lets_the_client_resume(site: Site) -> None:
    with site.server() as server, start_slow_push(site) as push:
        assert push.stdout is not None
        for line in push.stdout:
            if json.loads(line).get("durable_bytes", 0) >= MIB:
                server.terminate()
                break
        push.stdout.read()
        assert push.wait(60) == 7
        assert server.wait(60) == 0
    with site.server():
        site.pushed()
        assert site.equal()


def test_verify_finds_a_flipped_bit(site: Site) -> None:
    with site.server():
        site.pushed()
        site.replica.chmod(0o600)
        with site.replica.open("r+b") as file:
            file.seek(5 * MIB)
            byte = file.read(1)[0]
            file.seek(5 * MIB)
            file.write(bytes([byte ^ 1]))
        done = site.run("verify", str(site.source), site.target)
        assert_refused(done, 8, "differ")
        assert "differs: offset" in done.stderr


def test_a_replica_that_was_written_to_is_refused_then_adopted(site: Site) -> None:
    with site.server():
        site.pushed()
        site.replica.chmod(0o600)
        with site.replica.open("r+b") as file:
            file.write(b"x")
        before = site.replica.read_bytes()
        assert_refused(site.push(), 5, "written to", "--adopt")
        assert site.replica.read_bytes() == before
        assert 0 < sent(site.pushed("--adopt")) < MIB
        assert site.equal()


def test_a_foreign_volume_is_left_alone_without_adopt(site: Site) -> None:
    site.replica.write_bytes(b"mine" * 100)
    with site.server():
        assert_refused(site.push(), 10, "--adopt")
        assert site.replica.read_bytes() == b"mine" * 100
        site.pushed("--adopt")
        assert site.equal()


def test_a_replica_of_another_origin_is_refused(site: Site) -> None:
    other = site.folder / "other.img"
    other.write_bytes(site.random.randbytes(MIB))
    with site.server():
        site.pushed()
        assert_refused(site.run("push", str(other), site.target), 5, "another origin")
        assert site.equal()


def test_the_same_volume_at_both_ends_is_refused(site: Site) -> None:
    with site.server():
        link = site.images / "replica.img"
        os.link(site.source, link)
        assert_refused(site.push("--adopt"), 10, "same volume")


def test_a_dry_run_changes_nothing(site: Site) -> None:
    with site.server():
        done = site.push("--dry-run")
        assert done.returncode == 0
        assert "full" in done.stdout
        assert not site.replica.exists()
        told = json.loads(site.push("--dry-run", "--json").stdout.splitlines()[-1])
        assert (told["event"], told["data_bytes"]) == ("dry_run", 8 * MIB)


def test_a_dry_run_of_what_would_find_no_room_says_so(site: Site) -> None:
    site.preludes["server"] = (
        "from blockrep.storage.image import target; from blockrep.model.snapshots import Space;"
        "target.space_of = lambda *_: Space(4096, 1 << 20, 1 << 62);"
    )
    with site.server():
        assert_refused(site.push("--dry-run"), 6, "8.0 MiB", "1.0 MiB")
        assert_refused(site.push("--dry-run", "--quiet"), 6)
        assert_refused(site.push(), 6)


def test_compression_and_list_and_delta(site: Site) -> None:
    site.source.write_bytes(b"the same line again and again\n" * 100_000)
    with site.server():
        assert sent(site.pushed("--compress")) < 300_000
        assert site.equal()
        listing = site.run("list", site.target)
        assert (listing.returncode, "good" in listing.stdout) == (0, True)
        assert "good" in site.run("list", str(site.source)).stdout
        site.change(0, 10)
        told = json.loads(site.run("delta", str(site.source), "--json").stdout)
        assert told["data_bytes"] == 65536
        assert "since snapshot #1" in site.run("delta", str(site.source), "--extents").stdout


def test_bad_names_and_places(site: Site) -> None:
    with site.server():
        missing = site.run("push", str(site.folder / "missing.img"), site.target)
        assert_refused(missing, 10, "missing.img")
        outside = f"tls://localhost:{site.port}/{site.folder}/outside.img"
        refused = site.run("push", str(site.source), outside)
        assert_refused(refused, 4, "not allowed, or there is no such volume")
        assert not (site.folder / "outside.img").exists()
        link = site.images / "link.img"
        link.symlink_to(site.folder / "outside.img")
        refused = site.run("push", str(site.source), f"tls://localhost:{site.port}/{link}")
        assert refused.returncode == 4
        assert '"event": "refused"' in site.log()


def test_a_server_that_is_not_there(site: Site) -> None:
    done = site.run("push", str(site.source), f"tls://localhost:1/{site.replica}")
    assert_refused(done, 7, "localhost:1")


def test_a_wrong_host_name_is_refused(site: Site) -> None:
    with site.server():
        target = f"tls://127.0.0.1:{site.port}/{site.replica}"
        assert_refused(site.run("push", str(site.source), target), 3, "127.0.0.1")
        assert not site.replica.exists()


def test_a_client_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other-authority"
    create_authority(other)
    issue(other, "origin", [Role.CLIENT])
    with site.server():
        site.give_certificates("client", other, "origin")
        done = site.push()
        assert done.returncode == 3, done.stderr
        assert not site.replica.exists()


def test_a_server_s_certificate_is_no_client_s(site: Site, tmp_path: Path) -> None:
    with site.server():
        site.give_certificates("client", tmp_path / "authority", "localhost")
        done = site.push()
        assert done.returncode in {3, 4}, done.stderr
        assert not site.replica.exists()


def test_an_identity_may_do_what_is_listed_and_nothing_else(site: Site) -> None:
    rules = (
        f"[clients.origin]\ntargets = [{{ name = '{site.images}/allowed.img', adopt = false }}]\n"
    )
    with site.server(rules):
        assert_refused(site.push(), 4, "not allowed")
        allowed = f"tls://localhost:{site.port}/{site.images}/allowed.img"
        assert site.run("push", str(site.source), allowed).returncode == 0


def test_two_pushes_at_once_are_one_and_a_refusal(site: Site) -> None:
    with site.server():
        # So slow that it still runs when the other one has started, on whatever machine.
        with start_slow_push(site, "--bwlimit", "200k") as first:
            assert first.stdout is not None
            first.stdout.readline()
            assert_refused(site.push(), 12, "in use by push")
            first.kill()
        site.pushed()
        assert site.equal()


def test_doctor_says_whether_a_target_can_be_reached(site: Site) -> None:
    with site.server():
        done = site.run("doctor", site.target)
        assert f"{site.target}: is reachable; there is no good snapshot yet" in done.stdout
        site.pushed()
        done = site.run("doctor", site.target)
        assert f"{site.target}: is reachable; its newest good snapshot is " in done.stdout
    done = site.run("doctor", site.target)
    assert done.returncode == 7
    assert f"error    {site.target}" in done.stdout


def test_progress_that_cannot_be_told_stops_no_push(site: Site) -> None:
    full = Path("/dev/full")
    with site.server():
        command = site.command("push", str(site.source), site.target)
        with full.open("w") as output:
            assert subprocess.run(command, stderr=output, check=False, timeout=100).returncode == 0
        assert site.equal()
        site.change(0, MIB)
        with full.open("w") as output:
            done = subprocess.run(
                [*command, "--json"],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=100,
            )
        assert done.returncode == 11
        assert "standard output: cannot be written: No space left" in done.stderr
        site.pushed()
        assert site.equal()
