"""Complaints about a table name the file, the dotted key, what was found and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blockrep.config.reader import Table
from blockrep.errors import ConfigurationError

FILE = Path("/etc/blockrep/config.toml")


def table(**values: Any) -> Table:
    return Table(values, "server", FILE)


def test_an_unknown_key_is_told_with_what_is_near() -> None:
    reader = table(max_sesions=3)
    reader.integer("max_sessions", 16, 1, 100)
    with pytest.raises(ConfigurationError) as caught:
        reader.finish()
    assert str(caught.value) == (
        "/etc/blockrep/config.toml: server.max_sesions: this key is not known; "
        "accepted: max_sessions; did you mean max_sessions?"
    )


@pytest.mark.parametrize("value", ["3", 2.5, True, [3], 0, 101])
def test_a_wrong_number_is_told_with_its_bounds(value: object) -> None:
    with pytest.raises(ConfigurationError, match="accepted: a whole number from 1 to 100"):
        table(n=value).integer("n", 16, 1, 100)


def test_text_boolean_and_path() -> None:
    reader = table(text="x", flag=True, path="certs/ca.pem")
    assert reader.text("text", "") == "x"
    assert reader.boolean("flag", default=False) is True
    assert reader.path("path", None) == Path("/etc/blockrep/certs/ca.pem")
    assert reader.path("none", None) is None
    with pytest.raises(ConfigurationError, match="accepted: a path"):
        table(text="").path("text", None)
    with pytest.raises(ConfigurationError, match="'yes' is not accepted; accepted: true or false"):
        table(flag="yes").boolean("flag", default=False)


def test_sizes_and_durations_as_numbers_and_as_text() -> None:
    reader = table(a="64MiB", b=4096, c="30s", d=1.5)
    assert reader.size("a", 0, 0, 1 << 40) == 64 << 20
    assert reader.size("b", 0, 0, 1 << 40) == 4096
    assert reader.seconds("c", 0, 0, 100) == 30
    assert reader.seconds("d", 0, 0, 100) == 1.5
    with pytest.raises(ConfigurationError, match="'64 apples' is not accepted; accepted: a size"):
        table(a="64 apples").size("a", 0, 0, 1 << 40)
    with pytest.raises(
        ConfigurationError, match="'2h' is not accepted; accepted: 0 to 100 seconds"
    ):
        table(a="2h").seconds("a", 0, 0, 100)
    with pytest.raises(ConfigurationError, match="accepted: 1 to 10 bytes"):
        table(a=11).size("a", 1, 1, 10)


def test_what_cannot_be_left_out() -> None:
    with pytest.raises(
        ConfigurationError, match=r"server\.name: it is missing; .*cannot be left out"
    ):
        table().required_text("name")
    with pytest.raises(ConfigurationError, match="not empty"):
        table(name="").required_text("name")


def test_choices() -> None:
    assert table(o=["push"]).choices("o", (), ("push", "list")) == {"push"}
    with pytest.raises(ConfigurationError, match=r"a list of push, list; did you mean push\?"):
        table(o=["pusj"]).choices("o", (), ("push", "list"))
    with pytest.raises(ConfigurationError, match="a list of push, list"):
        table(o=[7]).choices("o", (), ("push", "list"))


def test_tables_are_named_with_their_dotted_keys() -> None:
    whole = Table({"hosts": {"a.b": {"x": 1}}, "list": [{}, {"x": 1}]}, "", FILE)
    (host,) = whole.tables("hosts").values()
    with pytest.raises(ConfigurationError, match=r"config.toml: hosts\.'a\.b'\.x: "):
        host.finish()
    with pytest.raises(ConfigurationError, match=r"list\[1\]\.x: "):
        whole.list_of_tables("list")[1].finish()
    with pytest.raises(ConfigurationError, match=r"hosts\.y: .*a table, as \[hosts\.NAME\]"):
        Table({"hosts": {"y": 1}}, "", FILE).tables("hosts")
    with pytest.raises(ConfigurationError, match="accepted: a list of tables"):
        Table({"list": [1]}, "", FILE).list_of_tables("list")
    with pytest.raises(ConfigurationError, match="accepted: a table"):
        Table({"server": 1}, "", FILE).table("server")
