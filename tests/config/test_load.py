"""The configuration is found where it is expected, and its faults are told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.config.load import default_directories, load_settings, load_tls_settings
from blockrep.errors import ConfigurationError


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def test_root_has_the_directories_of_the_system() -> None:
    directories = default_directories({"XDG_CONFIG_HOME": "/elsewhere"}, 0)
    assert directories.configuration == Path("/etc/blockrep")
    assert directories.state == Path("/var/lib/blockrep")
    assert directories.runtime == Path("/run/blockrep")


def test_others_have_those_of_xdg() -> None:
    directories = default_directories({"HOME": "/home/u"}, 1000)
    assert directories.configuration == Path("/home/u/.config/blockrep")
    assert directories.state == Path("/home/u/.local/state/blockrep")
    assert directories.runtime == Path("/home/u/.local/state/blockrep/run")
    given = {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r", "HOME": "/h"}
    directories = default_directories(given, 1000)
    assert directories.configuration == Path("/c/blockrep")
    assert directories.state == Path("/s/blockrep")
    assert directories.runtime == Path("/r/blockrep")
    relative = default_directories({"XDG_CONFIG_HOME": "c", "HOME": "/h"}, 1000)
    assert relative.configuration == Path("/h/.config/blockrep")


def test_no_file_means_defaults(tmp_path: Path) -> None:
    settings = load_settings(None, environment(tmp_path), 1000)
    assert settings.file == tmp_path / ".config/blockrep/config.toml"
    assert [str(address) for address in settings.server.listen] == ["*:8733"]
    assert settings.tls.directory == tmp_path / ".config/blockrep/certs"
    assert settings.access.clients is None


def test_the_default_file_is_read(tmp_path: Path) -> None:
    folder = tmp_path / ".config/blockrep"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[client]\nport = 99\n")
    settings = load_settings(None, environment(tmp_path), 1000)
    assert settings.file == folder / "config.toml"
    assert settings.client.port == 99


def test_a_given_file_has_its_certificates_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    settings = load_settings(file, environment(tmp_path), 1000)
    assert settings.tls.directory == tmp_path / "certs"
    assert settings.storage.state_directory == tmp_path / ".local/state/blockrep"


def test_a_given_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file; correct --config"):
        load_settings(tmp_path / "none.toml", environment(tmp_path), 1000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[client\n", "is not TOML: .*line 1"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), "is too large"),
        (b"[client]\nport = " + b"9" * 5000, "line 2: a number has too many digits"),
        (b"[client]\nport = " + b"9_" * 5000 + b"9", "line 2: a number has too many digits"),
        (b"[client]\nport = 0x" + b"f" * 5000, r"client\.port: a number of too many digits is not"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"[tls]\nkey = '~no-such-user/a.key'", r"tls\.key: '~no-such-user/a.key' is not accepted"),
        (b"[tls]\nkey = '" + b"k" * 256 + b"'", r"tls\.key: 'kkk.*\.\.\. is not accepted"),
        (b"[tls]\nkey = '" + b"k/" * 2000 + b"'", r"tls\.key: 'k/k.*\.\.\. is not accepted"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_settings(file, environment(tmp_path), 1000)
    assert str(caught.value).startswith(str(file))


def test_a_file_that_cannot_be_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        load_settings(tmp_path / ("x" * 256), environment(tmp_path), 1000)
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        load_settings(None, {"HOME": "/" + "x" * 256}, 1000)


def test_whoever_has_no_home_is_told() -> None:
    with pytest.raises(ConfigurationError, match="set HOME"):
        default_directories({}, 4_000_000)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, environment(tmp_path), 1000)


def test_one_part_is_read_whatever_the_others_hold(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nnonsense = 1\n[tls]\ndirectory = 'keys'\n")
    assert load_tls_settings(file, {}, 0).directory == tmp_path / "keys"
    assert load_tls_settings(None, environment(tmp_path), 1000).ca is None
    file.write_text("[tls]\nnonsense = 1\n")
    with pytest.raises(ConfigurationError, match=r"tls\.nonsense"):
        load_tls_settings(file, {}, 0)
