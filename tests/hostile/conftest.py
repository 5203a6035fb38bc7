"""Workers and readers of the app for hostile input."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.process.conftest import POSTGRES, REDIS, Ledger, ledger_on
from tests.processes import Running

APPS = Path(__file__).parent / "apps"


@dataclass
class Hostile(Ledger):
    """A worker under an audit hook, and what it was seen to do."""

    def audit(self) -> str:
        return Path(self.env["HOSTILE_AUDIT"]).read_text()

    def worker(self, *options: str) -> Running:
        return self.of_app("hostile_app", *options)

    def of_app(self, app: str, *options: str) -> Running:
        return self.running("worker", "-l", "INFO", *options, app=app)

    def running(self, *words: str, app: str = "hostile_app") -> Running:
        self.workers += 1
        log = self.folder / f"worker-{self.workers}.log"
        return Running([sys.executable, "-m", "umbel", "-A", app, *words], cwd=APPS, env=self.env, log=log)


@pytest.fixture
def on_file(tmp_path: Path) -> Hostile:
    url = f"sqlite:///{tmp_path}/umbel.sqlite3"
    return hostile_on(url, tmp_path)


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Hostile:
    if request.param == "sqlite":
        return hostile_on(f"sqlite:///{tmp_path}/umbel.sqlite3", tmp_path)
    if request.param == "postgresql":
        return hostile_on(request.getfixturevalue("postgres_database"), tmp_path)
    return hostile_on(request.getfixturevalue("redis_url"), tmp_path, request.getfixturevalue("redis_prefix"))


def hostile_on(url: str, folder: Path, prefix: str = "") -> Hostile:
    plain = ledger_on(url, url, folder, prefix)
    plain.env.update(
        HOSTILE_AUDIT=str(folder / "audit"), PYTHONPATH=os.pathsep.join(filter(None, (str(APPS), os.environ.get("PYTHONPATH"))))
    )
    return Hostile(plain.env, folder)
