"""Every key of the documented configuration is read; every wrong value is refused before anything
starts."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.config.settings import Directories, HostAlias, Settings, read_settings
from blockrep.config.values import Address, LocalAddress
from blockrep.errors import ConfigurationError

FILE = Path("/etc/blockrep/config.toml")
DIRECTORIES = Directories(Path("/etc/blockrep"), Path("/var/lib/blockrep"), Path("/run/blockrep"))
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/configuration.md"


def read(text: str) -> Settings:
    return read_settings(tomllib.loads(text), FILE, DIRECTORIES)


def test_defaults() -> None:
    settings = read("")
    assert settings.server.listen == (Address("", 8733),)
    assert settings.server.peer_timeout_seconds == 30
    assert settings.storage.state_directory == Path("/var/lib/blockrep")
    assert settings.storage.data_reserve_percent == 5
    assert settings.client.port == 8733
    assert settings.tls.directory == Path("/etc/blockrep/certs")
    assert settings.access.clients is None
    assert settings.server.audit_file is None


def test_the_documented_example_says_what_the_defaults_are() -> None:
    # The first block of the document lists every key with its default, commented out.
    (block,) = re.findall(r"```toml\n# Every key.*?\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    uncommented = re.sub(r"^#(?! )|^#(?=  \{)", "", block, flags=re.MULTILINE)
    documented = read(uncommented)
    default = read("")
    assert replace(documented.server, audit_file=None) == default.server
    assert documented.server.audit_file == Path("/var/log/blockrep/audit.log")
    assert documented.storage == default.storage
    assert replace(documented.client, hosts={}) == default.client
    assert replace(documented.ssh, config=None, forward=None) == default.ssh
    assert documented.client.hosts["replica"].address == Address("10.0.0.2", 8733)
    assert documented.access.clients is not None
    assert documented.access.image_directory == Path("/var/lib/blockrep/images")


def test_every_toml_example_of_the_document_is_accepted() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        read(block)


def test_ssh() -> None:
    settings = read(
        "[ssh]\ncommand = 'ssh -F \"my file\"'\nremote_command = '/opt/b --config x'\n"
        "config = 'ssh_config'\nforward = 'unix:/run/blockrep.sock'\n"
    ).ssh
    assert settings.command == ("ssh", "-F", "my file")
    assert settings.remote_command == ("/opt/b", "--config", "x")
    assert settings.config == Path("/etc/blockrep/ssh_config")
    assert settings.forward == LocalAddress("/run/blockrep.sock")


def test_host_aliases() -> None:
    settings = read(
        '[client]\nport = 99\n[hosts.replica]\naddress = "10.0.0.2"\n'
        '[hosts.other]\naddress = "[::1]:5"\nserver_name = "replica"'
    )
    assert settings.client.locate("replica", 1) == HostAlias(Address("10.0.0.2", 99), "replica")
    assert settings.client.locate("other", 1) == HostAlias(Address("::1", 5), "replica")
    assert settings.client.locate("third", 1) == HostAlias(Address("third", 1), "third")


def test_client_rules() -> None:
    settings = read(
        '[clients.origin]\ntargets = [{ name = "vg/a", keep = 7 }, '
        '{ name = "b/*", volume = "vg/b-*", operations = ["list"], create = false, adopt = true }]'
    )
    assert settings.access.clients is not None
    first, second = settings.access.clients["origin"]
    assert (first.volume, first.keep, first.adopt, first.create) == ("vg/a", 7, False, True)
    assert (second.volume, second.operations) == ("vg/b-*", frozenset({"list"}))
    assert (second.create, second.adopt, second.keep) == (False, True, 3)


@pytest.mark.parametrize(
    ("text", "most", "for_each"),
    [
        ("", 64, 16),
        ("[server]\nmax_sessions = 100", 100, 25),
        ("[server]\nmax_sessions = 2", 2, 1),
        ("[server]\nmax_sessions = 2\nmax_sessions_per_client = 2", 2, 2),
    ],
)
def test_one_client_gets_a_quarter_of_the_sessions(text: str, most: int, for_each: int) -> None:
    server = read(text).server
    assert (server.max_sessions, server.max_sessions_per_client) == (most, for_each)


def test_limits_of_a_rule() -> None:
    settings = read(
        '[clients.origin]\ntargets = [{ name = "vg/a", keep_min = 2, quota_bytes = "1TiB", '
        'rate_bytes_per_second = "50M", max_pull_targets = 5, '
        'operations = ["push", "pull", "prune"] }, {name = "vg/b"}]'
    )
    assert settings.access.clients is not None
    first, second = settings.access.clients["origin"]
    assert (first.keep_min, first.quota_bytes, first.rate_bytes_per_second) == (
        2,
        1 << 40,
        50 << 20,
    )
    assert first.operations == {"push", "pull", "prune"}
    assert (second.keep_min, second.quota_bytes, second.rate_bytes_per_second) == (1, 0, 0)
    assert (first.max_pull_targets, second.max_pull_targets) == (5, 2)
    assert second.operations == {"push", "verify", "list"}


def test_an_empty_section_of_clients_is_not_none() -> None:
    assert read("[clients]").access.clients == {}


@pytest.mark.parametrize(
    ("text", "key", "accepted"),
    [
        ("[sever]", "sever", "did you mean server?"),
        ("[server]\nlisten_on = 1", "server.listen_on", "accepted: "),
        ("[storage]\npools = 1", "storage.pools", "did you mean pool?"),
        ("[tls]\ncert = 1", "tls.cert", "certificate"),
        ("[client]\nports = 1", "client.ports", "did you mean port?"),
        ("[ssh]\ncommands = 1", "ssh.commands", "did you mean command?"),
        ('[ssh]\nremote_command = ""', "ssh.remote_command", "the server's program"),
        ('[ssh]\ncommand = "ssh \'"', "ssh.command", "a command with its options"),
        ('[tls]\nca = "a\\u0000b"', "tls.ca", "a path"),
        ("server = 1", "server", "a table"),
        ('[server]\nlisten = "a:b"', "server.listen", "HOST:PORT"),
        ("[server]\nlisten = [1]", "server.listen", "a string"),
        ("[server]\nlisten = 1", "server.listen", "HOST:PORT, unix:/PATH, or a list"),
        ("[server]\nlisten = []", "server.listen", "one address at least"),
        ("[server]\nmax_sessions = 0", "server.max_sessions", "from 1 to 1000"),
        ('[server]\nwindow_bytes = "1MiB"', "server.window_bytes", "4 times max_payload_bytes"),
        ('[server]\nmax_payload_bytes = "5MiB"', "server.max_payload_bytes", "65536 to 4194304"),
        ("[server]\nheartbeat_seconds = 20", "server.peer_timeout_seconds", "2 times heartbeat"),
        ('[storage]\npool = "vg"', "storage.pool", "VG/POOL"),
        ('[storage]\npool = "/dev/x"', "storage.pool", "VG/POOL"),
        ("[storage]\ndata_reserve_percent = 91", "storage.data_reserve_percent", "0 to 90"),
        ('[tls]\nkey = "a.key"', "tls.certificate", "belong together"),
        ('[tls]\ncertificate = "a.pem"', "tls.key", "belong together"),
        ('[hosts]\nreplica = "x"', "hosts.replica", "[hosts.NAME]"),
        ("[hosts.replica]", "hosts.replica.address", "cannot be left out"),
        ('[hosts.replica]\naddress = "*"', "hosts.replica.address", "one host"),
        ('[hosts.replica]\naddress = "a"\nname = "b"', "hosts.replica.name", "server_name"),
        ("[clients.a]\ntargets = 1", "clients.a.targets", "a list of tables"),
        ("[clients.a]\ntarget = []", "clients.a.target", "did you mean targets?"),
        ("[clients.a]\ntargets = [{}]", "clients.a.targets[0].name", "cannot be left out"),
        ('[clients.a]\ntargets = [{name = "vg"}]', "clients.a.targets[0].name", "VG/LV"),
        (
            '[clients.a]\ntargets = [{name = "v/a", volumes = "v/a"}]',
            "clients.a.targets[0].volumes",
            "did you mean volume?",
        ),
        ('[clients.a]\ntargets = [{name = "*/*"}]', "clients.a.targets[0].name", "more than one *"),
        ('[clients.a]\ntargets = [{name = "/a/../b"}]', "clients.a.targets[0].name", "without .."),
        ('[clients.a]\ntargets = [{name = "v/*", volume = "v/a"}]', "[0].volume", "has a * if"),
        (
            '[clients.a]\ntargets = [{name = "v/a", keep = 0}]',
            "clients.a.targets[0].keep",
            "from 1",
        ),
        (
            '[clients.a]\ntargets = [{name = "v/a", operations = ["pulls"]}]',
            "clients.a.targets[0].operations",
            "push, verify, list, pull, prune; did you mean pull?",
        ),
        (
            '[clients.a]\ntargets = [{name = "v/a", keep = 2, keep_min = 3}]',
            "clients.a.targets[0].keep_min",
            "at most keep, which is 2",
        ),
        (
            '[clients.a]\ntargets = [{name = "v/a", max_pull_targets = 0}]',
            "clients.a.targets[0].max_pull_targets",
            "from 1 to 1000",
        ),
        (
            '[clients.a]\ntargets = [{name = "v/a", rate_bytes_per_second = 1000}]',
            "clients.a.targets[0].rate_bytes_per_second",
            "0 (no limit), or at least 65536 bytes",
        ),
        (
            '[clients.a]\ntargets = [{name = "v/a", quota_bytes = "much"}]',
            "clients.a.targets[0].quota_bytes",
            "a size",
        ),
    ],
)
def test_a_wrong_key_or_value_names_file_and_key_and_what_is_accepted(
    text: str, key: str, accepted: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"{FILE}: ")
    assert key in message
    assert accepted in message
    assert "\n" not in message
