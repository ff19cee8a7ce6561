"""``blockrep pull`` says what is wrong with its words before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.main import main


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["volg/thin", "vg/copy"], 2, "HOST:VG/LV"),
        (["replica:volg/thin", "replica:vg/copy"], 2, "TARGET is VG/LV or a path"),
        (["replica:volg/thin", "vg/copy", "--keep", "0"], 2, "at least 1 snapshot is kept"),
        (["replica:volg/thin", "vg/copy", "--full", "--adopt"], 2, "not allowed with"),
        (["replica:volg/thin", "vg/copy", "--bwlimit", "x"], 2, "--bwlimit"),
        (["replica:volg/thin", "./copy.img"], 3, "certificate"),
    ],
)
def test_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(
        f"[storage]\nstate_directory = '{tmp_path}/state'\nruntime_directory = '{tmp_path}/run'\n"
    )
    assert main(["pull", *words, "--config", str(config)]) == code
    assert text in capsys.readouterr().err
