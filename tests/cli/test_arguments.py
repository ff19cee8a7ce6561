"""The command line is what README says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.cli.arguments import parse_arguments
from blockrep.errors import UsageError
from blockrep.model.names import TARGET_FORMS


def test_push_knows_its_options() -> None:
    words = "push volg/lv replica:vg/lv --dry-run --compress --bwlimit 50M --verify --adopt --json"
    options = parse_arguments(words.split())
    assert (options.command, options.source, options.target) == ("push", "volg/lv", "replica:vg/lv")
    assert (options.dry_run, options.compress, options.verify, options.adopt) == (True,) * 4
    assert (options.bwlimit, options.json, options.quiet, options.full) == (
        "50M",
        True,
        False,
        False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "a/b", "c:d/e"],
        ["list"],
        ["list", "c:d/e"],
        ["delta", "a/b", "--to", "c:d/e", "--extents"],
        ["prune", "c:d/e", "--keep", "2", "--json"],
        ["authorize", "alpha", "--target", "vg/a", "--target", "/a/*=/b/*", "--key", "id.pub"],
        ["authorize", "alpha", "--target", "vg/a", "--operations", "list", "--toml"],
        ["certs", "init"],
        ["certs", "issue", "replica", "--server", "--host", "10.0.0.1", "--host", "r"],
        ["certs", "show"],
        ["demo", "--keep", "--size", "32M"],
    ],
)
def test_every_command_is_known(words: list[str]) -> None:
    assert parse_arguments(words).command == words[0]


@pytest.mark.parametrize(
    "words", ["push a/b", "pull", "verify a/b", "list", "prune --keep 1", "doctor"]
)
def test_every_command_that_takes_a_target_can_be_told_how_to_reach_it(words: str) -> None:
    end = " c/d" if words == "pull" else ""
    options = parse_arguments(
        f"{words} ssh://replica/c/d{end} --ssh-command ssh --ssh-forward unix:/run/b.sock".split()
    )
    assert (options.ssh_command, options.ssh_forward) == ("ssh", "unix:/run/b.sock")


@pytest.mark.parametrize("words", [[], ["push", "a/b"], ["certs"], ["certs", "issue"], ["lists"]])
def test_what_is_missing_or_unknown_is_told_with_where_to_look(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(words)
    assert "--help" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("--nonsense push a b", "blockrep"),
        ("push a b --nonsense", "blockrep push"),
        ("push a b c", "blockrep push"),
        ("certs issue a --nonsense", "blockrep certs issue"),
    ],
)
def test_what_is_left_over_is_told_with_the_help_of_its_command(words: str, program: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(words.split())
    assert caught.value.next_step == f"see {program} --help"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--help", TARGET_FORMS),
        ("demo --help", "16M to 4G"),
        ("push --help", "without effect on image files"),
    ],
)
def test_help_says_what_is_needed_and_accepted(
    words: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse_arguments(words.split())
    assert text in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("blockrep ")


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("push a b", None),
        ("push a b --config /x", "/x"),
        ("--config /x push a b", "/x"),
        ("--config /x push a b --config /y", "/y"),
        ("certs show --config /x", "/x"),
        ("--config /x certs show", "/x"),
    ],
)
def test_the_configuration_may_be_named_before_the_command(words: str, config: str | None) -> None:
    options = parse_arguments(words.split())
    assert options.config == (None if config is None else Path(config))
    assert options.debug is False
    assert parse_arguments(["--debug", *words.split()]).debug is True
