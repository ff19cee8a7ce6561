"""An ssh:// target is reached by the carrier that the configuration names, or not at all.

What comes of it is in tests/integration/test_ssh.py, with a real sshd.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.ssh import connect_ssh
from blockrep.config.load import load_settings
from blockrep.errors import ConnectionLostError, UnsupportedHostError
from blockrep.model.names import parse_target


def left_behind() -> list[Path]:
    return list(Path("/tmp").glob("blockrep-*/ssh"))


@pytest.mark.parametrize("forward", ["", 'forward = "unix:/run/x"\n', 'forward = "localhost:1"\n'])
async def test_the_system_client_that_is_named(tmp_path: Path, forward: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[ssh]\ncommand = '/nowhere/ssh -v'\n{forward}")
    with pytest.raises(UnsupportedHostError, match="/nowhere/ssh cannot be started"):
        await connect_ssh(parse_target("ssh://localhost/vg/lv"), load_settings(file, {}, 0))
    assert not left_behind()


async def test_the_library_without_a_command(tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("")
    file = tmp_path / "config.toml"
    file.write_text("[ssh]\nconfig = 'ssh'\n")
    with pytest.raises(ConnectionLostError, match="cannot connect"):
        await connect_ssh(parse_target("ssh://localhost:1/vg/lv"), load_settings(file, {}, 0))
