"""The configuration becomes a client: its folders, its certificates, its aliases."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.graph import client_graph
from blockrep.config.load import load_settings
from blockrep.errors import ConfigurationError
from blockrep.model.names import parse_target, parse_volume
from blockrep.storage.image.source import ImageSource


async def test_folders_come_from_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[storage]\nruntime_directory = '{tmp_path}/run'\n")
    with client_graph(load_settings(file, {}, 0)) as context:
        assert context.runtime_directory == tmp_path / "run"
        assert isinstance(context.open_source(parse_volume("/x.img")), ImageSource)
        limits = [parse_target(text) for text in ("localhost:vg/lv", "ssh://localhost/vg/lv")]
        assert [context.handshake_seconds(one) for one in limits] == [10, 60]
        with pytest.raises(ConfigurationError, match="certificate"):
            await context.connect(parse_target("localhost:vg/lv"))
