"""What the documents have people type works as it stands, and loses nothing where a part fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CERTIFICATES = "/etc/blockrep/certs"

#: Plays both hosts: HERE and THERE stand for the folder of certificates on either.
SHELL = """
blockrep() { "$PYTHON" -c 'from blockrep.cli.main import main; exit(main())' "$@" --directory "$HERE"; }
ssh() { shift; "${@/#"$HERE"/"$THERE"}"; }
scp() { [ -d "$THERE" ] && [ "$SCP_WORKS" = 1 ] && cp "${@:1:$#-1}" "$THERE"; }
"""  # noqa: E501 - one function a line


def commands_of(document: str) -> str:
    """Return the commands of a document that bring certificates to two hosts."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ours = re.compile(r"certs (init|issue)|^ssh ", re.MULTILINE)
    commands = "".join(block for block in blocks if ours.search(block))
    return re.sub(r"^\w+# +", "", commands, flags=re.MULTILINE)


@pytest.mark.parametrize("works", [True, False], ids=["copied", "not copied"])
@pytest.mark.parametrize(
    ("document", "host"), [("README.md", "origin"), ("certs/README.md", "replica")]
)
def test_certificates_reach_the_other_host_or_stay(
    tmp_path: Path, document: str, host: str, *, works: bool
) -> None:
    here, there = tmp_path / "here", tmp_path / "fresh" / "there"
    script = SHELL + commands_of(document).replace(CERTIFICATES, str(here))
    variables = {"PYTHON": sys.executable, "HERE": str(here), "THERE": str(there)}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), **variables}
    subprocess.run(
        ["bash", "-c", script],
        env=environment | {"SCP_WORKS": str(int(works))},
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    holder = there if works else here
    assert (holder / f"{host}.key").exists()
    if works:
        assert sorted(path.name for path in there.iterdir()) == [
            "ca.pem",
            f"{host}.key",
            f"{host}.pem",
        ]
        assert not (here / f"{host}.key").exists(), "it is of no use there any more"


@pytest.mark.parametrize("document", ["README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str)
def test_what_a_document_links_to_exists(document: str | Path) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]
