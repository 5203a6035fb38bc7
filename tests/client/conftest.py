"""Scripts in an interpreter of their own."""

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def python(tmp_path):
    """Runs a script in a fresh interpreter, in a folder of its own."""

    def run(script, **env):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    run.folder = tmp_path
    return run
