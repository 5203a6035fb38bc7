"""Workers of the faults' app, on servers of the test's own that can be broken."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests import servers
from tests.faults.proxy import Proxy
from tests.process.conftest import APPS as LEDGER_APPS
from tests.process.conftest import Ledger, ledger_on
from tests.processes import Running, wait_for

APPS = Path(__file__).parent / "apps"


class Faults(Ledger):
    """A ledger whose workers run `faults_app`."""

    def worker(self, *options: str, app: str = "faults_app", **env: str) -> Running:
        self.workers += 1
        log = self.folder / f"worker-{self.workers}.log"
        command = [sys.executable, "-m", "umbel", "-A", app, "worker", "-l", "INFO", *options]
        return Running(command, cwd=APPS, env={**self.env, **env}, log=log)

    def send(self, call: str) -> str:
        """Run *call* in a producer of its own."""
        return self.script(f"from faults_app import *\n{call}")

    def depth(self) -> str:
        return self.send("print(app.broker.depth(['celery'])['celery'])").strip()

    def times(self, line: str) -> int:
        return self.lines().count(line)


def faults_on(broker: str, backend: str, folder: Path, **env: str) -> Faults:
    plain = ledger_on(broker, backend, folder)
    path = os.pathsep.join(filter(None, (str(APPS), str(LEDGER_APPS), os.environ.get("PYTHONPATH"))))
    plain.env.update({"PYTHONPATH": path, **env})
    return Faults(plain.env, folder)


def goes_by(seconds: float) -> None:
    """Let time pass: how long an outage lasts is a part of the attack, and no condition ends it."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= end, seconds + 5)


@dataclass
class PrivateRedis:
    """A Redis server that keeps every write, and can be killed and started again on its port."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        keeps_all = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        binary = servers.find_binary(servers.REDIS)
        assert binary is not None
        command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *keeps_all]
        with (self.folder / "redis.log").open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **self.env}, start_new_session=True
            )
        wait_for(lambda: servers.answers(servers.REDIS, self.port), 10)

    def pids(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid]

    def send(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        assert self.process is not None
        self.send(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()  # nothing is sent to one that was waited for
            self.process.wait()


@contextlib.contextmanager
def running_redis(folder: Path, **env: str) -> Iterator[PrivateRedis]:
    """A private server that keeps its data in *folder*, and ends with the block."""
    folder.mkdir()
    server = PrivateRedis(folder, servers.free_port(), env=env)
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[PrivateRedis]:
    if servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs a redis-server to kill: apt-get install redis-server")
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def proxy(private_redis: PrivateRedis) -> Iterator[Proxy]:
    with Proxy(private_redis.url) as between:
        yield between


@pytest.fixture
def direct(private_redis: PrivateRedis, tmp_path: Path) -> Faults:
    """Producers and workers that reach the server itself."""
    return faults_on(private_redis.url, private_redis.url, tmp_path)


@pytest.fixture
def behind(proxy: Proxy, tmp_path: Path) -> Faults:
    """Workers that reach the server through the proxy."""
    return faults_on(proxy.url, proxy.url, tmp_path)


@pytest.fixture
def on_postgres(postgres_database: str, tmp_path: Path) -> Faults:
    return faults_on(postgres_database, postgres_database, tmp_path)


@pytest.fixture
def on_file(tmp_path: Path) -> Faults:
    url = f"sqlite:///{tmp_path}/umbel.sqlite3"
    return faults_on(url, url, tmp_path)


class Odd(Faults):
    """Workers of the app whose tasks are hard on their process."""

    def send(self, call: str) -> str:
        return self.script(f"from child_app import *\n{call}")

    def worker(self, *options: str, app: str = "child_app", **env: str) -> Running:
        return super().worker(*options, app=app, **env)


@pytest.fixture
def odd(on_file: Faults) -> Odd:
    return Odd(on_file.env, on_file.folder)
