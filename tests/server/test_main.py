"""The server starts only with a configuration that it understands, and says where it listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.server.main import main


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "--listen"),
        (["--listen", "nonsense:port"], 2, "--listen nonsense:port"),
        (["--listne"], 2, "--help"),
        (["--listen", "--config", "/nowhere.toml"], 3, "/nowhere.toml"),
    ],
)
def test_a_wrong_start_is_one_line_and_its_code(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blockrep-server: error: ")
    assert text in line


def test_missing_certificates_are_told_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[server]\nlisten = ['127.0.0.1:0']\n")
    assert main(["--listen", "--config", str(file)]) == 3
    assert "blockrep certs issue" in capsys.readouterr().err


def test_a_wrong_key_names_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[server]\nmax_session = 3\n")
    assert main(["--listen", "--config", str(file)]) == 3
    message = capsys.readouterr().err
    assert "config.toml" in message
    assert "max_sessions" in message
