"""A fleet: producers and workers of Celery and of umbel on one database of a private Redis."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests import servers, warm
from tests.compat.celery_env import LOUDLY, celery_python
from tests.processes import Running

APPS = Path(__file__).parent / "apps"
MANY_DATABASES = replace(servers.REDIS, command=lambda *given: [*servers.REDIS.command(*given), "--databases", "64"])
OF_FLEET = "from fleet import *\nimport fleet\n"
FOREIGN = ("CELERY_", "UMBEL_", "DJANGO_", "FLEET_", "BROKER_")


@dataclass
class Fleet:
    """Runs code and workers of either library, all with the app of `apps/fleet.py`."""

    url: str
    folder: Path
    celery: Path
    conf: dict[str, Any] = field(default_factory=dict)
    results: str = ""  # if they are not at the broker's URL
    logs: list[Path] = field(default_factory=list)

    def python(self, library: str) -> str:
        return str(self.celery) if library == "celery" else sys.executable

    def env(self, library: str, conf: dict[str, Any]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {
            **kept,
            "FLEET_LIBRARY": library,
            "FLEET_URL": self.url,
            "FLEET_RESULTS": self.results,
            "FLEET_FOLDER": str(self.folder),
            "FLEET_CONF": json.dumps({**self.conf, **conf}),
            "C_FORCE_ROOT": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def begin(self, library: str, code: str, **conf: Any) -> "subprocess.Popen[str]":
        """Starts a producer's code, with everything of `fleet` in its namespace."""
        return subprocess.Popen(
            [self.python(library), "-c", OF_FLEET + code],
            cwd=APPS, env=self.env(library, conf), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, process: "subprocess.Popen[str]") -> list[str]:
        """The lines that it printed."""
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += "\n(it took longer than 60 s)"
        assert process.returncode == 0, f"{out}\n{err}\n{self.tails()}"
        return out.splitlines()

    def script(self, library: str, code: str, **conf: Any) -> list[str]:
        """Runs a producer's code to its end, and gives the lines that it printed."""
        if library == "celery":
            return self.end(self.begin(library, code, **conf))
        done = warm.run(OF_FLEET + code, cwd=APPS, env=self.env(library, conf))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.tails()}"
        return done.stdout.splitlines()

    def worker(self, library: str, *options: str, **conf: Any) -> Running:
        log = self.folder / f"{library}-{len(self.logs)}.log"
        self.logs.append(log)
        if library == "celery":
            options = ("-P", "solo", "--without-mingle", "--without-gossip", "--without-heartbeat", *options)
        command = [self.python(library), "-m", library, "-A", "fleet", "worker", "-l", "INFO", *options]
        return Running(command, cwd=APPS, env=self.env(library, conf), log=log)

    def tails(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.logs)

    def ledger(self) -> list[list[str]]:
        """Who did what, in order: `[library, what]`."""
        path = self.folder / "ledger"
        return [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []

    def touch(self, name: str) -> None:
        (self.folder / name).touch()


@pytest.fixture(scope="module")
def new_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets, each on a database of its own."""
    celery = celery_python()
    if servers.find_binary(servers.REDIS) is None:
        reason = f"needs Redis: apt-get install {servers.REDIS.debian_package}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    numbers = itertools.count()
    with servers.private(MANY_DATABASES) as url:
        yield lambda **conf: Fleet(f"{url}/{next(numbers)}", tmp_path_factory.mktemp("fleet"), celery, conf)


@pytest.fixture
def fleet(new_fleet: Callable[..., Fleet]) -> Fleet:
    return new_fleet()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end what was not tested: a skip is easily overlooked."""
    reasons = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()) if isinstance(report.longrepr, tuple)}
    for reason in sorted(reason for reason in reasons if LOUDLY in reason):
        terminalreporter.write_line(f"!! {reason}", red=True)
