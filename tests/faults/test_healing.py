"""After a fault of any kind, a probe task completes within five seconds of the broker's return, and nobody has to help.

Two faults of each kind here, all in the life of one worker; the slow tests of `make chaos` make UMBEL_CHAOS_FAULTS (200) of each.
"""

import contextlib
import os
import re
import signal
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from tests.faults.conftest import Faults, PrivateRedis, faults_on, goes_by
from tests.faults.proxy import Proxy
from tests.processes import Running, wait_for

from umbel import Celery

FEW, MANY = 2, int(os.environ.get("UMBEL_CHAOS_FAULTS", "200"))
PROMISE = 5.0  # seconds from the broker's return to the end of a probe
DOWN = 0.3  # seconds that a fault lasts which the worker need not notice
SILENT = 1.5  # seconds without a word, in the slow tests: 1.2 is the longest wait for a reply
LOST = "Connection to broker lost"

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]


@dataclass
class World:
    """A private server, a proxy before it, a worker behind the proxy, and a producer that reaches the server itself."""

    server: PrivateRedis
    proxy: Proxy
    faults: Faults
    app: Celery
    worker: Running
    took: list[float] = field(default_factory=list)
    probes: int = 0
    long: bool = False

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """It begins with the block, and lasts until the worker has said so: one in which it asks for nothing is none to it."""
        wait_for(self.connected, 10, self.worker.tail)
        seen = self.worker.log().count(LOST)
        yield
        wait_for(lambda: self.worker.log().count(LOST) > seen, PROMISE, self.worker.tail)

    def connected(self) -> bool:
        """Has the end of each outage been said?"""
        log = self.worker.log()
        return log.count("again, after") == log.count(LOST)

    def admin(self, *command: object) -> object:
        with redis.Redis(port=self.server.port, socket_timeout=10) as client:
            return client.execute_command(*command)

    def probe(self) -> None:
        """Send a task, and measure from now until it has run."""
        self.probes += 1
        line, since = f"{self.probes}", time.monotonic()
        wait_for(self._sent, PROMISE + 5)
        wait_for(lambda: line in self.faults.lines(), PROMISE + 25, self.worker.tail)
        self.took.append(time.monotonic() - since)

    def _sent(self) -> bool:
        with contextlib.suppress(Exception):
            self.app.send_task("ledger_app.work", (self.probes,))
            return True
        return False


def restart(world: World) -> None:
    with world.outage():
        world.server.kill()
    world.server.start()


def reset(world: World) -> None:
    """The worker is idle: it waits in a blocking fetch."""
    wait_for(lambda: world.proxy.cut() > 0, 10)


def half_open(direction: str) -> Callable[[World], None]:
    def fault(world: World) -> None:
        world.proxy.freeze(**{"requests": True, "replies": True, direction: False})
        goes_by(SILENT if world.long else DOWN)
        world.proxy.thaw()

    return fault


def swallow(world: World) -> None:
    """Old connections are dead without a word; new ones work."""
    world.proxy.abandon()


def client_kill(world: World) -> None:
    world.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def client_pause(world: World) -> None:
    world.admin("CLIENT", "PAUSE", int(DOWN * 1000), "ALL")
    goes_by(DOWN)


def loading(world: World) -> None:
    with world.outage():
        world.proxy.answer_all(b"-LOADING Redis is loading the dataset in memory\r\n")
    world.proxy.answer_all(None)


def master_down(world: World) -> None:
    with world.outage():
        world.proxy.answer_all(b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n")
    world.proxy.answer_all(None)


def read_only(world: World) -> None:
    world.admin("CONFIG", "SET", "replica-serve-stale-data", "yes")
    with world.outage():
        world.admin("REPLICAOF", "127.0.0.1", "1")
    world.admin("REPLICAOF", "NO", "ONE")


def script_flush(world: World) -> None:
    world.admin("SCRIPT", "FLUSH")


def out_of_memory(world: World) -> None:
    world.admin("CONFIG", "SET", "maxmemory-policy", "noeviction")
    world.admin("CONFIG", "SET", "maxmemory", "1")
    goes_by(DOWN)
    world.admin("CONFIG", "SET", "maxmemory", "0")


def wrong_type(world: World) -> None:
    """Somebody's key has the name of one of ours."""
    keys = ["celery", "celery\x06\x163", "{celery}.delayed", "{celery}.idle"]
    key = keys[world.probes % len(keys)]
    world.admin("DEL", key)
    world.admin("SET", key, "rubbish")
    goes_by(DOWN)
    world.admin("DEL", key)


def data_lost(world: World) -> None:
    """The server comes back empty: the worker is no owner of anything any more."""
    world.admin("FLUSHALL")


def name_gone(world: World) -> None:
    """Nothing listens for a while, and connections are refused."""
    with world.outage():
        world.proxy.refuse(True)
        world.proxy.cut()
    world.proxy.refuse(False)


KINDS = {
    "restart": restart, "reset during a blocking fetch": reset, "half-open: replies are lost": half_open("requests"),
    "half-open: requests are lost": half_open("replies"), "dead connections": swallow, "refused": name_gone, "CLIENT KILL": client_kill,
    "CLIENT PAUSE": client_pause, "LOADING": loading, "MASTERDOWN": master_down, "READONLY": read_only, "NOSCRIPT": script_flush,
    "OOM": out_of_memory, "WRONGTYPE": wrong_type, "data lost": data_lost,
}  # fmt: skip
SAID = {"WRONGTYPE": 2, "data lost": 3}  # lines for one fault: two calls are refused; the end of the lease and a lost claim are said too
OUTAGES = {"restart", "refused", "LOADING", "MASTERDOWN", "READONLY"}  # no call succeeds meanwhile


@pytest.fixture
def world(private_redis: PrivateRedis, proxy: Proxy, tmp_path) -> Iterator[World]:
    faults = faults_on(proxy.url, proxy.url, tmp_path, LEDGER_LEASE="4")
    app = Celery("probes", broker=private_redis.url, backend=private_redis.url)
    with faults.worker("-c", "1") as worker:
        worker.waits_to_print("ready.")
        yield World(private_redis, proxy, faults, app, worker)
        worker.send(signal.SIGTERM)
        worker.exit_code(20)
    app.close()


def test_a_result_backend_that_was_away_gets_what_it_missed(private_redis, tmp_path):
    """Messages in a file, results behind a proxy that refuses."""
    with Proxy(private_redis.url) as proxy:
        faults = faults_on(f"sqlite:///{tmp_path}/umbel.sqlite3", proxy.url, tmp_path)
        results = Celery("probes", broker=f"sqlite:///{tmp_path}/umbel.sqlite3", backend=private_redis.url)
        with faults.worker("-c", "1") as worker:
            worker.waits_to_print("ready.")
            for number in range(1, FEW + 1):
                proxy.refuse(True)
                proxy.cut()
                sent = results.send_task("ledger_app.work", (1,))
                wait_for(lambda number=number: worker.log().count("result backend lost") == number, 20, worker.tail)
                proxy.refuse(False)
                since = time.monotonic()
                assert sent.get(timeout=PROMISE + 20) == 1
                assert time.monotonic() - since < PROMISE
                wait_for(lambda number=number: worker.log().count("Connected to the result backend again") == number, 10, worker.tail)
            worker.send(signal.SIGTERM)
            assert worker.exit_code(20) == 0, worker.tail()
        results.close()
    assert worker.log().count("result backend lost") == FEW


@pytest.mark.parametrize("locked", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_file_that_another_process_locked_is_used_soon_after(on_file, locked):
    app = Celery("probes", broker=on_file.env["LEDGER_BROKER"])
    with on_file.worker("-c", "1") as worker:
        worker.waits_to_print("ready.")
        with contextlib.closing(sqlite3.connect(on_file.env["LEDGER_BROKER"].removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            goes_by(locked)
            other.execute("ROLLBACK")
        since = time.monotonic()
        app.send_task("ledger_app.work", (1,))
        wait_for(lambda: "1" in on_file.lines(), 30, worker.tail)
        print(f"locked for {locked} s: {time.monotonic() - since:.2f} s")
        assert time.monotonic() - since < PROMISE
        worker.send(signal.SIGTERM)
        assert worker.exit_code(20) == 0, worker.tail()
    app.close()
    said = [line for line in worker.log().splitlines() if ": WARNING/" in line or ": ERROR/" in line]
    assert len(said) == 1, "\n".join(said)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_was_removed_is_said_and_made_anew(on_file, tmp_path, how):
    path = Path(on_file.env["LEDGER_BROKER"].removeprefix("sqlite:///"))
    with on_file.worker("-c", "1") as worker:
        worker.waits_to_print("ready.")
        if how == "replaced":
            others = Celery("others", broker=f"sqlite:///{tmp_path}/other.sqlite3")
            others.send_task("ledger_app.work", (7,))
            others.close()
        for file in tmp_path.glob(f"{path.name}*"):
            file.unlink()
        if how == "replaced":
            Path(f"{tmp_path}/other.sqlite3").rename(path)
        worker.waits_to_print("was removed or replaced")
        on_file.send("work.delay(1)")
        wait_for(lambda: "1" in on_file.lines(), 30, worker.tail)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(20) == 0, worker.tail()
    assert ("7" in on_file.lines()) == (how == "replaced")
    assert "Traceback" not in worker.log(), worker.tail()


SLOW = [pytest.mark.slow, pytest.mark.timeout(120 + 15 * MANY)]


@pytest.mark.parametrize(
    ("kinds", "count"), [pytest.param([*KINDS], FEW, id="all"), *(pytest.param([kind], MANY, id=kind, marks=SLOW) for kind in KINDS)]
)
def test_a_probe_completes_soon_after_each_fault(world, kinds, count):
    world.long = count > FEW
    world.probe()
    for kind in kinds:
        world.took.clear()
        before = world.worker.log()
        for _ in range(count):
            KINDS[kind](world)
            world.probe()
        print(f"{kind}: {len(world.took)} faults, median {statistics.median(world.took):.2f} s, slowest {max(world.took):.2f} s")
        assert max(world.took) <= PROMISE
        check(world, kind, count, len(before))


def check(world: World, kind: str, count: int, start: int) -> None:
    """Each outage is in the log once, with its end, however often the worker tried."""

    def log() -> str:
        return world.worker.log()[start:]

    wait_for(world.connected, 10, world.worker.tail)
    assert "Traceback" not in log(), world.worker.tail()
    said = [line for line in log().splitlines() if ": WARNING/" in line or ": ERROR/" in line]
    assert len(said) <= count * SAID.get(kind, 1), "\n".join([kind, *said])
    if kind in OUTAGES:
        assert log().count(LOST) == count, "\n".join([kind, *said])
        assert len(re.findall(r"Connected to the broker again, after [\d.]+ s", log())) == count, "\n".join([kind, *said])


def test_a_full_redis_is_emptied_by_its_workers(world):
    for number in range(1, 21):
        world.app.send_task("ledger_app.work", (number, 0.3))
    world.admin("CONFIG", "SET", "maxmemory-policy", "noeviction")
    world.admin("CONFIG", "SET", "maxmemory", "1")
    wait_for(lambda: len(world.faults.numbers()) == 20, 30, world.worker.tail)  # longer than the lease
    assert len(world.faults.lines()) == 21
    assert "lapsed" not in world.worker.log()
