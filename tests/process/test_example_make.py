"""The repository's own commands, as far as they can be tried without making an environment."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "dev", "lint", "types", "bench", "docs", "clean"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE), f"make {target} has no ## comment"


def test_bootstrap_passes_over_a_python_that_is_too_old(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(old)}
    command = [str(ROOT / "scripts" / "bootstrap.sh"), "--find"]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.stdout.strip() != str(old)


def test_bootstrap_says_what_to_install_where_no_python_fits(tmp_path):
    # Nothing satisfies a minimum that does not exist yet.
    command = [str(ROOT / "scripts" / "bootstrap.sh"), "--min", "3.99", "--venv", str(tmp_path / "venv")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "umbel needs Python 3.99 or newer" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()
