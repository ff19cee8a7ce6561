"""Rules about the code that no linter states: sizes, banned notes, secrets, a test per module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "blockrep"
TESTS = ROOT / "tests"

MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 70

#: Folders that are made, not written.
GENERATED = re.compile(r"^(\.git|\.venv.*|\..*_cache|\.hypothesis|\.cache|__pycache__|dist|build)$")
#: Files that hold no text of ours.
MAX_TEXT_BYTES = 4 * 1024 * 1024

#: Modules without a test file of their own, and why. Modules that define no function and no class
#: (constants, re-exports) need no entry.
WITHOUT_TEST_FILE = {
    "replication/push.py": "values only; tested with the sender that takes and returns them",
    "storage/interface.py": "protocols only; the contract suite runs over every kind",
    "transport/interface.py": "protocols only; every transport is tested against them",
}

# Written in pieces, so that this file does not break its own rules.
BANNED_TEXT = {
    "an unfinished note": re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE" r" KEY-----\s*[A-Za-z0-9+/=]{16}"),
    "the name of a package registry": re.compile(
        r"\b(pypi" r"\.org|python" r"hosted\.|npm" r"js\.|deb\.debian" r"\.org|crates" r"\.io)"
    ),
    "a path of one developer's machine": re.compile(r"(?<![\w.~$}-])/work" r"/"),
}
SECRET_SUFFIXES = {".key", ".pem", ".p12", ".pfx"}

MODULES = sorted(SRC.rglob("*.py"))


def written_files(folder: Path = ROOT) -> Iterator[Path]:
    """Yield every file that a person wrote."""
    for path in sorted(folder.iterdir()):
        if GENERATED.match(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            yield from written_files(path)
        elif path.is_file():
            yield path


def text_of(path: Path) -> str:
    """Return the text of a file, empty for what is not text."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def defines_something(path: Path) -> bool:
    """Tell whether a module has a function or a class."""
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return any(isinstance(node, definitions) for node in ast.walk(ast.parse(text_of(path))))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check() -> None:
    assert MODULES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_short_enough_to_read_at_once(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short_enough_to_read_at_once(path: Path) -> None:
    too_long = {
        f"{function.name}, line {function.lineno}": length
        for function in functions_of(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not too_long


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_bare_except_and_no_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            pytest.fail(f"line {node.value.lineno}: programs are started by argument lists")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_has_its_test_file(path: Path) -> None:
    module = path.relative_to(SRC)
    if str(module) in WITHOUT_TEST_FILE or not defines_something(path):
        return
    name = module.parent.name if module.name == "__init__.py" else module.stem
    test_file = TESTS / module.parent / f"test_{name.strip('_')}.py"
    assert test_file.is_file(), f"{module} lacks {name_of(test_file)}"


def test_exceptions_to_the_test_file_rule_are_still_needed() -> None:
    for module in WITHOUT_TEST_FILE:
        own_test = TESTS / Path(module).with_name(f"test_{Path(module).stem}.py")
        assert (SRC / module).is_file(), f"{module} is gone"
        assert not own_test.exists(), f"{module} has its test file now"


@pytest.mark.parametrize("what", BANNED_TEXT)
def test_banned_text(what: str) -> None:
    found = [
        f"{name_of(path)}:{text.count(chr(10), 0, match.start()) + 1}"
        for path in written_files()
        if (text := text_of(path))
        for match in BANNED_TEXT[what].finditer(text)
    ]
    assert not found, f"{what} in {', '.join(found)}"


def test_no_file_looks_like_a_key() -> None:
    assert not [name_of(path) for path in written_files() if path.suffix in SECRET_SUFFIXES]


def test_the_failure_modes_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "failure-modes.md").read_text()
    sources = "\n".join(path.read_text() for path in TESTS.rglob("*.py"))
    defined = set(re.findall(r"^ *(?:async )?def (test_\w+)\(", sources, re.MULTILINE))
    assert not set(re.findall(r"`(test_\w+)`", text)) - defined
    missing = [one for one in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / one).exists()]
    assert not missing
