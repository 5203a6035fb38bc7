"""A worker of the ledger's app, on a broker of the test's own."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import warm
from tests.processes import Running
from tests.rabbitmq import delete_queues

APPS = Path(__file__).parent / "apps"


@dataclass
class Ledger:
    """What has run, and the means to run more."""

    env: dict[str, str]
    folder: Path
    workers: int = 0

    def lines(self) -> list[str]:
        path = Path(self.env["LEDGER"])
        return path.read_text().splitlines() if path.exists() else []

    def numbers(self) -> set[int]:
        return {int(line) for line in self.lines() if line.isdigit()}

    def worker(self, *options: str) -> Running:
        self.workers += 1
        log = self.folder / f"worker-{self.workers}.log"
        command = [sys.executable, "-m", "umbel", "-A", "ledger_app", "worker", "-l", "INFO", *options]
        return Running(command, cwd=APPS, env=self.env, log=log)

    def logs(self) -> str:
        """The ends of the last workers' logs; before each what was no task's start or success, which tells more than a thousand of them."""
        shown = []
        for path in sorted(self.folder.glob("worker-*.log"))[-3:]:
            text = path.read_text()
            told = [line for line in text.splitlines() if line.startswith("[2") and not line.endswith("received") and ": Task " not in line]
            shown.append("\n".join([f"--- {path.name}", *told[-30:], "... its end:", text[-1500:]]))
        return "\n".join(shown)

    def script(self, code: str) -> str:
        """Run a producer's code in a process of its own and return what it printed."""
        done = warm.run(code, cwd=APPS, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout


def ledger_on(broker: str, backend: str, folder: Path, prefix: str = "") -> Ledger:
    env = {
        **os.environ,
        "LEDGER": str(folder / "ledger"),
        "LEDGER_BROKER": broker,
        "LEDGER_BACKEND": backend,
        "LEDGER_PREFIX": prefix,
        "PYTHONUNBUFFERED": "1",
        "C_FORCE_ROOT": "1",
    }
    env.pop("DJANGO_SETTINGS_MODULE", None)
    return Ledger(env, folder)


REDIS, POSTGRES, AMQP = (
    pytest.param(name, marks=mark)
    for name, mark in (("redis", pytest.mark.redis), ("postgresql", pytest.mark.postgres), ("amqp", pytest.mark.amqp))
)


@pytest.fixture(params=["sqlite", REDIS, POSTGRES, AMQP])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/umbel.sqlite3"
        yield ledger_on(url, url, tmp_path)
    elif request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
        yield ledger_on(url, url, tmp_path)
    elif request.param == "amqp":
        url = request.getfixturevalue("amqp_url")
        ledger = ledger_on(url, f"sqlite:///{tmp_path}/umbel.sqlite3", tmp_path)
        ledger.env["LEDGER_STATE"] = ledger.env["LEDGER_BACKEND"]
        yield ledger
        delete_queues(url, "celery")
    else:
        url = request.getfixturevalue("redis_url")
        yield ledger_on(url, url, tmp_path, request.getfixturevalue("redis_prefix"))
