"""Whoever comes second is queued or told who is at it; nobody commits what is not his any more."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from integration.conftest import Site

MIB = 1 << 20
#: Both ends notice a silent peer within four seconds.
IMPATIENT = "heartbeat_seconds = 1\npeer_timeout_seconds = 4\n"


@pytest.fixture(autouse=True)
def _content(site: Site) -> None:
    site.fill(8 * MIB)


def start(site: Site, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        site.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_slow_push(site: Site, rate: str = "2M") -> subprocess.Popen[str]:
    """Return a push that has begun to send and has seconds to go."""
    push = start(site, "push", str(site.source), site.target, "--json", "--bwlimit", rate)
    wait_for(push, "planned")
    return push


def wait_for(push: subprocess.Popen[str], event: str, key: str = "event") -> None:
    assert push.stdout is not None
    for line in push.stdout:
        fields = json.loads(line)
        if fields["event"] == event and fields.get(key):
            return
    raise AssertionError(f"no {event} with {key}")


def end(push: subprocess.Popen[str]) -> str:
    """Wait for the end; return what it said."""
    output, errors = push.communicate(timeout=100)
    return output + errors


def test_sixteen_pushes_at_once_all_end_equal(site: Site) -> None:
    sources = [site.folder / f"source-{number}.img" for number in range(16)]
    for number, source in enumerate(sources):
        source.write_bytes(bytes([number]) * 100_000)
    with site.server():
        pushes = [
            start(
                site,
                "push",
                str(source),
                f"tls://localhost:{site.port}/{site.images}/{source.name}",
            )
            for source in sources
        ]
        said = [end(push) for push in pushes]
    assert [push.returncode for push in pushes] == [0] * 16, said
    for source in sources:
        assert (site.images / source.name).read_bytes() == source.read_bytes()


def test_another_source_waits_and_is_then_refused(site: Site) -> None:
    other = site.folder / "other.img"
    other.write_bytes(b"other" * 1000)
    with site.server(), start_slow_push(site) as push:
        done = site.run("push", str(other), site.target)
        assert "error" not in end(push)
        assert done.returncode == 5, "a replica of another origin is not overwritten"
        assert site.equal()


def test_whoever_waited_too_long_is_told_who_is_at_it(site: Site) -> None:
    other = site.folder / "other.img"
    other.write_bytes(b"other" * 1000)
    with site.server(extra=IMPATIENT), start_slow_push(site, "200K") as push:
        done = site.run("push", str(other), site.target)
        push.kill()
        assert done.returncode == 12, done.stderr
        assert "in use by push by origin from 127.0.0.1:" in done.stderr


@pytest.mark.parametrize("question", ["list", "verify"])
def test_questions_during_a_push_are_answered_or_refused(site: Site, question: str) -> None:
    with site.server():
        site.pushed()
        site.change(0, 4 * MIB)
        with start_slow_push(site) as push:
            words = [site.target] if question == "list" else [str(site.source), site.target]
            done = site.run(question, *words)
            assert done.returncode in {0, 12}, done.stderr
            if done.returncode:
                assert "in use by " in done.stderr
            assert "error" not in end(push)
        assert push.returncode == 0
        assert site.equal()


def test_a_push_that_wakes_up_after_its_successor_changes_nothing(site: Site) -> None:
    """I5: its session was ended when it fell silent; the successor took over what it had sent."""
    with site.server(extra=IMPATIENT), start_slow_push(site) as zombie:
        wait_for(zombie, "progress", "durable_bytes")
        zombie.send_signal(signal.SIGSTOP)
        try:
            done = subprocess.run(
                successor(site), capture_output=True, text=True, timeout=100, check=False
            )
            committed = site.replica.read_bytes()
        finally:
            zombie.send_signal(signal.SIGCONT)
        said = end(zombie)
        assert done.returncode == 0, done.stderr
        assert zombie.returncode == 7, said
        assert site.replica.read_bytes() == committed
        assert site.equal()
        site.pushed()
        assert site.run("verify", str(site.source), site.target).returncode == 0


def successor(site: Site) -> list[str]:
    """Return a push of the same volume that does not see the lock of the first one."""
    config = site.folder / "client" / "elsewhere.toml"
    text = site.config("client").read_text()
    config.write_text(text.replace(f"{site.folder}/client/run", f"{site.folder}/elsewhere"))
    command = site.command("push", str(site.source), site.target)
    return [*command[:-1], str(config)]


def test_a_silent_server_is_noticed(site: Site) -> None:
    with site.server(extra=IMPATIENT) as server, start_slow_push(site) as push:
        server.send_signal(signal.SIGSTOP)
        try:
            said = end(push)
        finally:
            server.send_signal(signal.SIGCONT)
        assert push.returncode == 7, said
        assert "resumes" in said
    with site.server():
        site.pushed()
        assert site.equal()
