"""A profile says where the program was, and the program does not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sampler import place_of, sampler_argv


def test_a_sampled_program_does_what_it_does(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    done = subprocess.run(
        [*sampler_argv(note, "client"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("blockrep ")
    figures = json.loads(note.read_text())
    assert set(figures) == {"places", "thread_cpu_seconds"}


def test_a_place_is_a_file_a_line_and_a_function() -> None:
    place = place_of(sys._getframe())
    assert "test_sampler.py:" in place
    assert place.endswith(" test_a_place_is_a_file_a_line_and_a_function")
