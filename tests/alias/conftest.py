"""Programs of their own: the alias is for a whole process."""

import os
import subprocess
import sys
import textwrap

import pytest


class Programs:
    """Runs Python in a folder of the test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "UMBEL_", "DJANGO_"))}
        self.env.update(C_FORCE_ROOT="1", PYTHONDONTWRITEBYTECODE="1")

    def write(self, **modules):
        for name, text in modules.items():
            file = self.folder / f"{name.replace('__', '/', 1) if '__' in name.strip('_') else name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(text))

    def run(self, *words, **env):
        command = [sys.executable, "-W", "error", *words]
        return subprocess.run(command, cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, timeout=60, check=False)

    def python(self, text, *, installed=True):
        """Runs a program under the alias, and gives what it printed."""
        first = "import umbel; umbel.install_as_celery()\n" if installed else ""
        ran = self.run("-c", first + textwrap.dedent(text))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def programs(tmp_path):
    return Programs(tmp_path)
