"""What the configuration holds: every value with its default and its bounds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from blockrep.config.access import (
    DEFAULT_KEEP,
    DEFAULT_OPERATIONS,
    DEFAULT_PULL_TARGETS,
    OPERATIONS,
    AccessPolicy,
    TargetRule,
    check_pattern,
)
from blockrep.config.reader import Table
from blockrep.config.values import (
    Address,
    LocalAddress,
    parse_address,
    parse_listening_address,
)
from blockrep.model.names import DEFAULT_PORT, parse_volume
from blockrep.protocol.limits import (
    DEFAULT_PAYLOAD_BYTES,
    DEFAULT_WINDOW_BYTES,
    MAX_PAYLOAD_BYTES,
    MIN_PAYLOAD_BYTES,
)
from blockrep.storage.interface import StorageSettings

__all__ = [
    "ClientSettings",
    "Directories",
    "HostAlias",
    "ServerSettings",
    "Settings",
    "SshSettings",
    "TlsSettings",
    "read_settings",
    "read_tls_settings",
]

_MAX_PORT: Final = 65535
_MAX_WINDOW_BYTES: Final = 16 << 30
_MAX_BUFFER_BYTES: Final = 4 << 30
_MAX_SESSIONS: Final = 1000
_MAX_KEEP: Final = 1000
_MAX_PULL_TARGETS: Final = 1000
_MAX_QUOTA_BYTES: Final = 1 << 60
# Slower, one batch of frames would be waited for longer than a minute.
_MIN_RATE_BYTES: Final = 64 << 10
_MAX_RATE_BYTES: Final = 1 << 40
_DAY_SECONDS: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Directories:
    """Where things lie unless the configuration says otherwise.

    Attributes:
        configuration: holds ``config.toml`` and ``certs``.
        state: survives a reboot.
        runtime: emptied by a reboot.
    """

    configuration: Path
    state: Path
    runtime: Path


@dataclass(frozen=True, slots=True)
class HostAlias:
    """How a host that targets name is reached, and under which name its certificate is checked."""

    address: Address
    server_name: str


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """``[client]`` and ``[hosts.NAME]``.

    Attributes:
        port: of targets that name none.
        connect_timeout_seconds: for name, TCP and TLS together.
        retry_give_up_seconds: without progress, then ``--retry`` ends.
        retry_longest_wait_seconds: between two attempts of ``--retry``.
        hosts: by the name that targets give them.
    """

    port: int = DEFAULT_PORT
    connect_timeout_seconds: float = 10.0
    retry_give_up_seconds: float = 3600.0
    retry_longest_wait_seconds: float = 60.0
    hosts: Mapping[str, HostAlias] = field(default_factory=dict)

    def locate(self, host: str, port: int) -> HostAlias:
        """Return how to reach what a target calls ``host``; an alias decides about the port too."""
        return self.hosts.get(host) or HostAlias(Address(host, port), host)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``[server]``.

    Attributes:
        listen: addresses; an empty host means all.
        max_sessions: sessions at once.
        max_sessions_per_client: sessions at once of one identity; by default a quarter of them.
        max_unauthenticated: connections whose handshake is under way.
        handshake_seconds: limit of the TLS handshake, and of HELLO and WELCOME after it.
        heartbeat_seconds: silence after which a sign of life is sent.
        peer_timeout_seconds: silence after which the peer counts as dead.
        idle_seconds: how long a session may have nothing open.
        window_bytes: sent and not yet durable.
        max_payload_bytes: of one frame.
        buffer_bytes: received payloads in memory, for each session.
        audit_file: the audit log is appended to it too; None: to no file.
    """

    listen: tuple[Address | LocalAddress, ...] = (Address("", DEFAULT_PORT),)
    max_sessions: int = 64
    max_sessions_per_client: int = 16
    max_unauthenticated: int = 32
    handshake_seconds: float = 10.0
    heartbeat_seconds: float = 5.0
    peer_timeout_seconds: float = 30.0
    idle_seconds: float = 600.0
    window_bytes: int = DEFAULT_WINDOW_BYTES
    max_payload_bytes: int = DEFAULT_PAYLOAD_BYTES
    buffer_bytes: int = 16 << 20
    audit_file: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """``[tls]``; a path that is None is looked for in ``directory``.

    See :mod:`blockrep.config.identity`.
    """

    directory: Path
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    crl: Path | None = None


@dataclass(frozen=True, slots=True)
class SshSettings:
    """``[ssh]``: how targets of the form ``ssh://`` are reached.

    Attributes:
        command: the OpenSSH client with options; empty: the library in this process.
        remote_command: the server's program on other hosts.
        config: in the place of ``~/.ssh/config``, for the library.
        forward: a server that listens there on the other host is used; None: one is started.
        connect_timeout_seconds: for the connection, the login (somebody may have to touch a
            token) and the start of the program, each.
    """

    command: tuple[str, ...] = ()
    remote_command: tuple[str, ...] = ("blockrep-server",)
    config: Path | None = None
    forward: Address | LocalAddress | None = None
    connect_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. ``file`` is where it is, or would be: without one all is default."""

    file: Path
    client: ClientSettings
    server: ServerSettings
    storage: StorageSettings
    tls: TlsSettings
    ssh: SshSettings
    access: AccessPolicy


def read_settings(values: Mapping[str, object], file: Path, directories: Directories) -> Settings:
    """Check and convert the content of a configuration file.

    Args:
        values: what the TOML parser made of it; empty for no file.
        file: where it is, or would be; named in errors; relative paths count from its folder.
        directories: where defaults lie.

    Raises:
        ConfigurationError: a wrong key or value; names file and key, and what is accepted.
    """
    whole = Table(values, "", file)
    image_directory, server = _server(whole.table("server"))
    settings = Settings(
        file=file,
        client=_client(whole.table("client"), whole.tables("hosts")),
        server=server,
        storage=_storage(whole.table("storage"), directories),
        tls=_tls(whole.table("tls"), directories),
        ssh=_ssh(whole.table("ssh")),
        access=AccessPolicy(_clients(whole), image_directory),
    )
    whole.finish()
    return settings


def read_tls_settings(
    values: Mapping[str, object], file: Path | None, directories: Directories
) -> TlsSettings:
    """Do as :func:`read_settings` for ``[tls]``; what else there is may be wrong."""
    whole = Table(values, "", file or directories.configuration / "config.toml")
    return _tls(whole.table("tls"), directories)


def _client(table: Table, aliases: Mapping[str, Table]) -> ClientSettings:
    port = table.integer("port", DEFAULT_PORT, 1, _MAX_PORT)
    default = ClientSettings()
    timeout_seconds = table.seconds(
        "connect_timeout_seconds", default.connect_timeout_seconds, 0.1, _DAY_SECONDS
    )
    give_up_seconds = table.seconds(
        "retry_give_up_seconds", default.retry_give_up_seconds, 1, 30 * _DAY_SECONDS
    )
    longest_wait_seconds = table.seconds(
        "retry_longest_wait_seconds", default.retry_longest_wait_seconds, 0.1, _DAY_SECONDS
    )
    table.finish()
    hosts = {}
    for name, alias in aliases.items():
        address = alias.parsed("address", lambda text: parse_address(text, port))
        if not address.host:
            alias.reject("address", "the address of one host, as HOST:PORT")
        hosts[name] = HostAlias(address, alias.text("server_name", name))
        alias.finish()
    return ClientSettings(port, timeout_seconds, give_up_seconds, longest_wait_seconds, hosts)


def _server(table: Table) -> tuple[Path | None, ServerSettings]:
    image_directory = table.path("image_directory", None)
    default = ServerSettings()
    max_sessions = table.integer("max_sessions", default.max_sessions, 1, _MAX_SESSIONS)
    settings = ServerSettings(
        listen=table.addresses("listen", default.listen),
        max_sessions=max_sessions,
        max_sessions_per_client=table.integer(
            "max_sessions_per_client", max(max_sessions // 4, 1), 1, _MAX_SESSIONS
        ),
        max_unauthenticated=table.integer(
            "max_unauthenticated", default.max_unauthenticated, 1, _MAX_SESSIONS
        ),
        handshake_seconds=table.seconds("handshake_seconds", default.handshake_seconds, 0.1, 600),
        heartbeat_seconds=table.seconds("heartbeat_seconds", default.heartbeat_seconds, 0.1, 600),
        peer_timeout_seconds=table.seconds(
            "peer_timeout_seconds", default.peer_timeout_seconds, 0.2, 3600
        ),
        idle_seconds=table.seconds("idle_seconds", default.idle_seconds, 1, _DAY_SECONDS),
        window_bytes=table.size(
            "window_bytes", default.window_bytes, 4 * MIN_PAYLOAD_BYTES, _MAX_WINDOW_BYTES
        ),
        max_payload_bytes=table.size(
            "max_payload_bytes", default.max_payload_bytes, MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES
        ),
        buffer_bytes=table.size(
            "buffer_bytes", default.buffer_bytes, 2 * MAX_PAYLOAD_BYTES, _MAX_BUFFER_BYTES
        ),
        audit_file=table.path("audit_file", None),
    )
    if not settings.listen:
        table.reject("listen", f"one address at least; without the key it is *:{DEFAULT_PORT}")
    if settings.window_bytes < 4 * settings.max_payload_bytes:
        table.reject(
            "window_bytes", "at least 4 times max_payload_bytes", "the window is too small"
        )
    if settings.peer_timeout_seconds < 2 * settings.heartbeat_seconds:
        table.reject(
            "peer_timeout_seconds",
            "at least 2 times heartbeat_seconds",
            "the time limit is too short",
        )
    table.finish()
    return image_directory, settings


def _storage(table: Table, directories: Directories) -> StorageSettings:
    settings = StorageSettings(
        state_directory=table.path("state_directory", None) or directories.state,
        runtime_directory=table.path("runtime_directory", None) or directories.runtime,
        data_reserve_percent=table.integer("data_reserve_percent", 5, 0, 90),
        metadata_reserve_percent=table.integer("metadata_reserve_percent", 10, 0, 90),
        command_timeout_seconds=int(table.seconds("command_timeout_seconds", 120, 1, _DAY_SECONDS)),
        pool=table.text("pool", ""),
    )
    if settings.pool:
        try:
            is_lvm = parse_volume(settings.pool).is_lvm
        except ValueError:
            is_lvm = False
        if not is_lvm:
            table.reject("pool", "VG/POOL, a thin pool in which new replicas are created")
    table.finish()
    return settings


def _tls(table: Table, directories: Directories) -> TlsSettings:
    directory = table.path("directory", None) or directories.configuration / "certs"
    settings = TlsSettings(
        directory=directory,
        ca=table.path("ca", None),
        certificate=table.path("certificate", None),
        key=table.path("key", None),
        crl=table.path("crl", None),
    )
    if (settings.certificate is None) != (settings.key is None):
        missing = "key" if settings.key is None else "certificate"
        table.reject(missing, "a path; certificate and key belong together")
    table.finish()
    return settings


def _ssh(table: Table) -> SshSettings:
    default = SshSettings()
    remote_command = _words(table, "remote_command", default.remote_command)
    if not remote_command:
        table.reject("remote_command", "the server's program on other hosts")
    settings = SshSettings(
        command=_words(table, "command", default.command),
        remote_command=remote_command,
        config=table.path("config", None),
        forward=table.parsed("forward", parse_listening_address) if "forward" in table else None,
        connect_timeout_seconds=table.seconds(
            "connect_timeout_seconds", default.connect_timeout_seconds, 0.1, _DAY_SECONDS
        ),
    )
    table.finish()
    return settings


def _words(table: Table, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line as its words."""
    text = table.text(name, shlex.join(default))
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        table.reject(name, "a command with its options", str(error))


def _clients(whole: Table) -> Mapping[str, tuple[TargetRule, ...]] | None:
    # No [clients] at all and an empty [clients] are opposites: everybody with a certificate,
    # nobody.
    present = "clients" in whole
    clients = {}
    for identity, table in whole.tables("clients").items():
        clients[identity] = tuple(_target(target) for target in table.list_of_tables("targets"))
        table.finish()
    return clients if present else None


def _target(table: Table) -> TargetRule:
    name = table.parsed("name", check_pattern)
    volume = table.parsed("volume", check_pattern) if "volume" in table else ""
    if not volume:
        table.text("volume", "")
    if volume and ("*" in volume) != ("*" in name):
        table.reject("volume", "a volume that has a * if, and only if, name has one")
    rule = TargetRule(
        name=name,
        volume=volume or name,
        operations=table.choices("operations", DEFAULT_OPERATIONS, OPERATIONS),
        create=table.boolean("create", default=True),
        adopt=table.boolean("adopt", default=False),
        keep=table.integer("keep", DEFAULT_KEEP, 1, _MAX_KEEP),
        keep_min=table.integer("keep_min", 1, 1, _MAX_KEEP),
        quota_bytes=table.size("quota_bytes", 0, 0, _MAX_QUOTA_BYTES),
        rate_bytes_per_second=table.size("rate_bytes_per_second", 0, 0, _MAX_RATE_BYTES),
        max_pull_targets=table.integer(
            "max_pull_targets", DEFAULT_PULL_TARGETS, 1, _MAX_PULL_TARGETS
        ),
    )
    if 0 < rule.rate_bytes_per_second < _MIN_RATE_BYTES:
        table.reject("rate_bytes_per_second", f"0 (no limit), or at least {_MIN_RATE_BYTES} bytes")
    if rule.keep_min > rule.keep:
        table.reject("keep_min", f"at most keep, which is {rule.keep}")
    table.finish()
    return rule
