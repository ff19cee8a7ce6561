"""A server listens on all of its addresses or on none, and on what the service manager made."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.values import Address, LocalAddress
from blockrep.errors import ConfigurationError
from blockrep.server import listening as module
from blockrep.server.listening import inherited_sockets, serve_listening
from support.listening import Listening, until


def again(settings: Settings) -> Callable[[], Settings]:
    return lambda: settings


async def test_a_unix_socket_needs_no_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    serving = asyncio.create_task(
        serve_listening(settings, [LocalAddress(str(path))], again(settings))
    )
    await until(path.is_socket)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0
    assert capsys.readouterr().out == f"listening on unix:{path}\n"
    assert not path.exists()


async def test_a_hangup_while_it_starts_reloads_and_does_not_kill(tmp_path: Path) -> None:
    """Its default action would end the server between the start and the last preparation."""
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    loads: list[bool] = []

    def load() -> Settings:
        loads.append(True)
        return settings

    path = tmp_path / "s"
    serving = asyncio.create_task(serve_listening(settings, [LocalAddress(str(path))], load))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: loads == [True])
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: loads == [True, True])
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0


async def test_an_address_that_cannot_be_had_leaves_nothing(tmp_path: Path) -> None:
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    path = tmp_path / "s"
    with pytest.raises(ConfigurationError, match="certificate"):
        await serve_listening(
            settings, [LocalAddress(str(path)), Address("127.0.0.1", 0)], again(settings)
        )
    assert not path.exists()


async def test_connections_that_never_say_hello_are_not_many(tmp_path: Path) -> None:
    """Over a Unix socket too: one user has his share of the sessions, whoever he is."""
    path = tmp_path / "s"
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    serving = asyncio.create_task(
        serve_listening(settings, [LocalAddress(str(path))], again(settings))
    )
    await until(path.is_socket)
    loop = asyncio.get_running_loop()
    silent = []
    for _ in range(200):
        silent.append(sock := socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
    refused = [asyncio.create_task(loop.sock_recv(sock, 1)) for sock in silent]
    await until(lambda: sum(one.done() for one in refused) >= 200 - 16)
    assert sum(not one.done() for one in refused) == 16
    for one in refused:
        one.cancel()
    await asyncio.gather(*refused, return_exceptions=True)
    for sock in silent:
        sock.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 20) == 0


async def test_the_service_managers_socket_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    monkeypatch.setattr(module, "inherited_sockets", lambda _environment: [sock])
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    serving = asyncio.create_task(serve_listening(settings, [Address("", 1)], again(settings)))
    await until(lambda: "listening" in capsys.readouterr().out)
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0
    assert path.is_socket(), "it is the manager's"


async def test_the_service_managers_socket_is_used_for_tls_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    monkeypatch.setattr(module, "inherited_sockets", lambda _environment: [sock])
    site = Listening(tmp_path, str)
    serving = asyncio.create_task(serve_listening(site.load(), [], site.load))
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"this is not TLS\r\n" * 10)
    assert await asyncio.wait_for(reader.read(1), 10) != b"t"
    writer.close()
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0


async def test_a_certificate_that_ends_soon_is_told_at_start_and_at_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Listening(tmp_path, str, days=5)
    addresses = [Address("127.0.0.1", 0)]
    serving = asyncio.create_task(serve_listening(site.load(), addresses, site.load))
    await until(lambda: caplog.text.count("the certificate expires in 4 days") == 1)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: caplog.text.count("the certificate expires in 4 days") == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0


async def test_a_folder_for_images_that_is_not_there_is_told_before_anybody_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, images, config = tmp_path / "s", tmp_path / "images", tmp_path / "config.toml"
    config.write_text(f"[server]\nimage_directory = '{images}'\n")
    settings = load_settings(config, {"HOME": str(tmp_path)}, 1000)
    addresses = [LocalAddress(str(path))]
    with pytest.raises(ConfigurationError, match="image directory does not exist"):
        await serve_listening(settings, addresses, again(settings))
    images.mkdir()
    serving = asyncio.create_task(serve_listening(settings, addresses, again(settings)))
    await until(path.is_socket)
    images.rmdir()
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: "image directory does not exist" in caplog.text)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0


def test_sockets_of_another_process_are_not_ours() -> None:
    assert inherited_sockets({}) == []
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []


def test_descriptors_from_three_on_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        number = os.dup(sock.fileno())
        os.set_inheritable(number, True)  # as from exec
        monkeypatch.setattr(module, "_FIRST_INHERITED", number)
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        (found,) = inherited_sockets(environment)
        assert found.family == sock.family
        assert not found.get_inheritable()
        found.close()
