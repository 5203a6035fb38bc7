"""The program as its users run it: in a process (`tests/warm.py` says what such a one has imported) and a folder of its own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import warm

Ran = subprocess.CompletedProcess[str]
OURS = ("CELERY_", "UMBEL_", "DJANGO_")
GENERIC = {"APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "NO_COLOR", "SKIP_CHECKS"}


class Folder:
    """A folder with the modules of a project, and the program in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(OURS) and name not in GENERIC}
        self.env["C_FORCE_ROOT"] = "1"  # the tests may run as root

    def write(self, **files: str) -> None:
        """Writes modules: `pkg__celery="..."` is `pkg/celery.py`, `pkg____init__` is `pkg/__init__.py`."""
        for name, text in files.items():
            file = self.path / (name.replace("__", "/", 1) + ".py" if "__" in name else f"{name}.py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(text))

    def project(self, name: str = "proj", more: str = "") -> None:
        """Writes a module with an app on a broker and a backend in this folder."""
        text = f"""
            from umbel import Celery

            app = Celery("{name}", broker="sqlite:///{self.path}/q.sqlite3", backend="sqlite:///{self.path}/r.sqlite3")


            @app.task
            def add(x, y):
                return x + y


            @app.task
            def fail(text):
                raise ValueError(text)
        """
        self.write(**{name: textwrap.dedent(text) + more})

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "umbel", *words]

    def umbel(self, *words: str, input: str = "", **env: str) -> Ran:
        return warm.run(warm.program(*words), cwd=self.path, env={**self.env, **env}, input=input)

    def python(self, code: str, **env: str) -> Ran:
        return warm.run(textwrap.dedent(code), cwd=self.path, env={**self.env, **env})

    def run(self, command: list[str], **env: str) -> Ran:
        return subprocess.run(command, cwd=self.path, env={**self.env, **env}, capture_output=True, text=True, timeout=60, check=False)

    def found(self, name: str) -> Ran:
        """Looks for the app that `name` leads to, and prints its name."""
        return self.python(f"from umbel.cli.find import find_app; print(find_app({name!r}).main)")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def project(folder: Folder) -> Folder:
    folder.project()
    return folder


@pytest.fixture
def one_sentence() -> Callable[[Ran, int], str]:
    """Checks that a run ended with this exit code and said one thing, and gives it."""

    def check(ran: Ran, code: int) -> str:
        assert ran.returncode == code, (ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        lines = ran.stderr.strip().splitlines()
        assert lines, "it said nothing"
        assert lines[-1].startswith("Error: "), ran.stderr
        return lines[-1]

    return check
