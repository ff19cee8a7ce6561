"""A real server reloads rules, certificates and audit file by SIGHUP; wrong ones change nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role

from .conftest import Site

RULES = "[clients.origin]\ntargets = [{{ name = '{}', operations = {} }}]\n"
EVERYTHING = ["push", "verify", "list", "prune"]


class Changing:
    """The server of a site, and the rules in its configuration."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process: subprocess.Popen[str] | None = None
        self._head = ""

    @property
    def audit_path(self) -> Path:
        return self.site.folder / "server" / "audit.log"

    def rules(self, *operations: str) -> str:
        return RULES.format(self.site.replica, list(operations))

    def started(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._head = self.site.config("server").read_text().partition("[clients")[0]

    def change(self, text: str) -> None:
        """Write other rules and say so; returns when the server has looked at them."""
        assert self.process is not None
        before = len(self.recorded("reload"))
        self.site.config("server").write_text(self._head + text)
        os.kill(self.process.pid, signal.SIGHUP)
        self.wait(lambda: len(self.recorded("reload")) > before)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.site.log()
            os.sched_yield()

    def recorded(self, event: str) -> list[dict[str, Any]]:
        if not self.audit_path.exists():
            return []
        lines = [json.loads(line) for line in self.audit_path.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def operate(self, *words: str) -> int:
        return self.site.run(*words).returncode


@pytest.fixture
def changing(site: Site) -> Changing:
    return Changing(site)


def test_a_removed_identity_is_ended_and_a_restored_one_resumes(changing: Changing) -> None:
    site = changing.site
    extra = f"audit_file = '{changing.audit_path}'\n" + changing.rules(*EVERYTHING)
    with site.server(extra) as process:
        changing.started(process)
        command = site.command("push", str(site.source), site.target, "--json", "--bwlimit", "4M")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as push:
            assert push.stdout is not None
            assert push.stderr is not None
            for line in push.stdout:
                if json.loads(line).get("durable_bytes", 0):
                    break
            changing.change("[clients]\n")
            push.stdout.read()
            assert push.wait(60) == 4
            assert "does not allow it any more" in push.stderr.read()
        assert not site.replica.exists()
        assert changing.operate("list", site.target) == 4
        changing.change(changing.rules("list"))
        assert changing.operate("list", site.target) == 0
        assert site.push().returncode == 4
        changing.change(changing.rules(*EVERYTHING))
        events = site.pushed()
        assert next(one["mode"] for one in events if one["event"] == "decided") == "resume"
        assert site.equal()
        assert changing.operate("prune", site.target, "--keep", "1") == 0
    (ended,) = changing.recorded("ended")
    assert (ended["identity"], len(ended["fingerprint"])) == ("origin", 64)
    assert len(changing.recorded("refused")) == 2
    assert len(changing.recorded("committed")) == 2
    assert changing.audit_path.stat().st_mode & 0o777 == 0o600


def test_a_wrong_configuration_is_told_and_the_old_one_stays(changing: Changing) -> None:
    site = changing.site
    extra = f"audit_file = '{changing.audit_path}'\n" + changing.rules(*EVERYTHING)
    with site.server(extra) as process:
        changing.started(process)
        certificate = site.folder / "server/certs/localhost.pem"
        kept = certificate.read_bytes()
        for text in ("[clients.origin\n", "[clients.origin]\ntarget = []\n"):
            changing.change(text)
        certificate.write_bytes(b"damaged")
        changing.change("[clients]\n")
        certificate.write_bytes(kept)
        assert [one["done"] for one in changing.recorded("reload")] == [False] * 3
        assert site.log().count("the one before stays") == 3
        site.pushed()
        assert site.equal()


def test_certificates_are_read_again_and_a_rotated_audit_file_is_let_go(
    changing: Changing,
) -> None:
    site = changing.site
    with site.server(f"audit_file = '{changing.audit_path}'\n") as process:
        changing.started(process)
        site.pushed()
        other = site.folder / "other"
        create_authority(other)
        issue(other, "localhost", [Role.SERVER])
        issue(other, "origin", [Role.CLIENT])
        site.give_certificates("server", other, "localhost")
        assert changing.operate("list", site.target) == 0, "not read again yet"
        rotated = changing.audit_path.rename(changing.audit_path.with_suffix(".1"))
        changing.change("")
        assert changing.operate("list", site.target) == 3
        site.give_certificates("client", other, "origin")
        assert changing.operate("list", site.target) == 0
        assert '"committed"' in rotated.read_text()
        assert changing.recorded("committed") == []
        changing.wait(lambda: len(changing.recorded("refused")) == 1)
        (refused,) = changing.recorded("refused")
        assert refused["address"].startswith("127.0.0.1:")
        assert (refused["identity"], refused["fingerprint"]) == ("", ""), "it showed nothing"


def test_a_renewal_asks_the_rules_that_hold_now(site: Site, changing: Changing) -> None:
    certificates = site.folder / "server" / "certs"
    authority = site.folder / "authority"
    issue(authority, "brief", [Role.CLIENT], days=20)
    site.give_certificates("client", authority, "brief")
    shutil.copy(authority / "ca.key", certificates)
    rules = changing.rules(*EVERYTHING).replace("origin", "brief")
    with site.server(f"audit_file = '{changing.audit_path}'\n{rules}") as process:
        changing.started(process)
        renewal = ("peer", "renew", f"localhost:{site.port}")
        assert changing.operate(*renewal) == 0
        issue(authority, "again", [Role.CLIENT], days=20)
        site.give_certificates("client", authority, "again")
        assert changing.operate(*renewal) == 4
        changing.change(rules + rules.replace("brief", "again"))
        assert changing.operate(*renewal) == 0
