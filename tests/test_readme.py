"""The commands of README and docs, as a newcomer copies them (those marked `network` aside)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(bash|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "docs/labels.md", "docs/samples.md")
"""In this order: the later ones use what the README's commands have made."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # some forty commands, one after the other
def test_every_command_of_the_readme_runs(tmp_path):
    blocks = [block for page in PAGES for block in BLOCK.findall((ROOT / page).read_text())]
    commands = [(kind, text) for kind, text in blocks if "make demo" not in text]
    assert {kind for kind, _ in commands} == {"bash", "python", "toml"}
    # Without a console script on the PATH the commands are those of this checkout.
    script = tmp_path / "bin" / "lcengine"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lcengine "$@"\n')
    script.chmod(0o755)
    python = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{script.parent}:{python}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def run(arguments):
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stderr}"

    run(["lcengine", "demo", "--size", "512", "--dates", "6"])
    for kind, text in commands:
        if kind == "toml":
            named = re.match(r"# (\w+\.toml)\n", text)
            (tmp_path / (named[1] if named else "labels.toml")).write_text(text)
        else:
            run(["bash", "-eu", "-c", text] if kind == "bash" else ["python", "-c", text])
    assert (tmp_path / "composite.png").exists()


def test_the_tests_that_the_docs_name_exist():
    named = set(re.findall(r"`(test_\w+|Test\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    source = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    written = set(re.findall(r"^\s*(?:def|class) (\w+)", source, re.MULTILINE))
    missing = {name for name in named if not any(one.startswith(name) for one in written)}
    assert missing == set()
    assert len(named) > 50
