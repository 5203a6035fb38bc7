"""What a chaos run takes place in: a broker, proxies before it, nodes that are started again when they end, producers."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests import servers
from tests.faults.conftest import PrivateRedis, goes_by
from tests.faults.proxy import Proxy
from tests.postgres import PrivatePostgres, running_postgres
from tests.process.test_killed import children_of
from tests.processes import Running, wait_for
from tests.rabbitmq import PrivateRabbit
from tests.redis_family.processes import watched

from umbel.broker import Broker, QueueDepth, Verb
from umbel.drivers import open_backend, open_broker
from umbel.testing.conformance.base import item, settlement

APPS = Path(__file__).parent / "apps"
QUEUES = ("celery", "slow")
POOLS = ("prefork", "threads", "asyncio", "solo")
READY = 30  # seconds that a worker may take to start on a busy machine


@dataclass(frozen=True, slots=True)
class Incident:
    """What a nemesis did, to whom, and until when; times are of CLOCK_MONOTONIC, as in the ledger."""

    kind: str
    node: str  # "" for the whole world
    began: float
    ended: float
    killed: tuple[int, ...] = ()


@dataclass
class Node:
    """One worker node, which keeps its name over all its lives."""

    name: str
    pool: str
    proxy: Proxy | None
    results: Proxy | None = None  # if they are kept on another server
    running: Running | None = None
    log_before: int = 0  # characters of the log that belong to its earlier lives

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.process.poll() is None

    def is_ready(self) -> bool:
        assert self.running is not None
        return " ready." in self.running.log()[self.log_before :]

    def zygote(self) -> int | None:
        """The pid of its first child: the zygote, or under solo the keeper."""
        return next(iter(sorted(children_below(self.pid))), None)

    def children(self) -> list[int]:
        zygote = self.zygote()
        return [] if zygote is None or self.pool == "solo" else children_below(zygote)

    def tree(self) -> list[int]:
        return [self.pid, *children_of(self.pid)]


def children_below(pid: int) -> list[int]:
    rows = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
    return [int(child) for child, parent in rows if int(parent) == pid]


@dataclass(kw_only=True)
class World:
    """Use it in a `with` block; `folder` then holds the ledger, the acknowledged ids, and the logs."""

    folder: Path
    driver: str
    seed: int
    lease: float
    pools: tuple[str, ...]
    pace: float
    kinds: tuple[str, ...]
    incidents: list[Incident] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what nemeses saw that should not be
    options: dict[str, object] = field(default_factory=dict)  # of the drivers

    def __enter__(self) -> Self:
        self.chance = random.Random(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger, self.acks = self.folder / "ledger", self.folder / "acks"
        self.shim = compile_shim(self.folder)
        self.server: PrivateRedis | PrivatePostgres | PrivateRabbit | None = None
        self.driver, _, self.results = self.driver.partition("+")
        self.result_server: PrivateRedis | PrivatePostgres | None = None
        self._stack = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _open(self) -> None:
        if self.driver == "postgresql":
            self.server = self._postgres()
            self.url = self.server.url
        elif self.driver == "sentinel":
            self.watched = self._stack.enter_context(watched(self.folder / "redis"))
            # All of them: a master that was frozen may come back with one of its replicas, while the other is the master.
            self.url, self.options = self.watched.url, {**self.watched.options, "replicas": 2}
        elif self.driver == "redis":
            self.server = self._redis()
            self.url = self.server.url
        elif self.driver == "amqp":
            self.server = PrivateRabbit(self.folder / "rabbit")
            self._stack.callback(self.server.close)
            self.server.start()
            self.url = self.server.url
        else:
            self.url = self._file
        if self.results:
            self.result_server = self._redis() if self.results == "redis" else self._postgres()
        self.broker = open_broker(self.url, options=self.options, timeout=5, state_url=self._file)
        self.backend = open_backend(self._beside(self.url), options=self.options, timeout=5)
        self._stack.callback(self.broker.close)
        if self.driver == "amqp":
            declare_all(self.broker)
        self.nodes = [Node(f"n{i}", pool, self._proxy(), self._result_proxy()) for i, pool in enumerate(self.pools, 1)]
        self.producer_proxy = self._proxy()
        self._stack.callback(self._end_nodes)
        for node in self.nodes:
            self.start(node)
        for node in self.nodes:
            assert node.running is not None
            node.running.waits_to_print("ready.", READY)
        self.producers = [self._producer(self.seed * 10 + i) for i in range(2)]

    def _redis(self) -> PrivateRedis:
        (self.folder / "redis").mkdir()
        server = PrivateRedis(self.folder / "redis", servers.free_port(), env=self.clock_env())
        self._stack.callback(server.end)
        server.start()
        return server

    def _postgres(self) -> PrivatePostgres:
        return self._stack.enter_context(running_postgres())

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _proxy(self) -> Proxy | None:
        """Return one, where a URL says where to connect to: a file has no connections, and sentinels name another address."""
        return self._stack.enter_context(Proxy(self.url)) if self.driver not in {"sqlite", "sentinel"} else None

    def _result_proxy(self) -> Proxy | None:
        return self._stack.enter_context(Proxy(self.result_server.url)) if self.result_server else None

    @property
    def _file(self) -> str:
        return f"sqlite:///{self.folder}/umbel.sqlite3"

    def _beside(self, url: str) -> str:
        """Where results are: on the server for them, or in a file, if the broker keeps none."""
        if self.result_server is not None:
            return self.result_server.url
        return self._file if self.driver == "amqp" else url

    def clock_env(self, node: str = "") -> dict[str, str]:
        return {"LD_PRELOAD": str(self.shim), "CHAOS_SKEW": str(self._skew(node))} if self.shim else {}

    def _skew(self, node: str) -> Path:
        """The file that says how far a clock is off: one for the server and one for each node; SQLite's clock is that of all nodes."""
        file = self.folder / f"skew-{node if self.driver != 'sqlite' else ''}"
        if not file.exists():
            file.write_bytes(bytes(8))
        return file

    def step_clock(self, seconds: float, node: str = "") -> None:
        """Let the wall clock of the broker, or of one node, be *seconds* off."""
        with self._skew(node).open("r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e6)))

    def _env(self, url: str, node: str, results: Proxy | None = None) -> Mapping[str, str]:
        path = os.pathsep.join(filter(None, (str(APPS), str(APPS.parents[2]), os.environ.get("PYTHONPATH"))))
        env = {
            **os.environ, "CHAOS_BROKER": url, "CHAOS_BACKEND": results.url if results else self._beside(url), "CHAOS_STATE": self._file,
            "CHAOS_LEDGER": str(self.ledger), "CHAOS_LEASE": str(self.lease),
            "CHAOS_NODE": node, "CHAOS_OPTIONS": json.dumps(self.options), "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1", "PYTHONPATH": path,
        }  # fmt: skip
        env |= self.clock_env(node)
        env.pop("DJANGO_SETTINGS_MODULE", None)
        return env

    def start(self, node: Node) -> None:
        """Start *node*, or start it again under its old name."""
        if node.running is not None:
            node.running.end_group()
            node.running.process.wait()
            node.log_before = len(node.running.log())
        url = node.proxy.url if node.proxy else self.url
        command = [sys.executable, "-m", "umbel", "-A", "chaos_app", "worker", "-l", "INFO", "-P", node.pool, "-c", "2", "-n", node.name]
        node.running = Running(
            [*command, "-Q", ",".join(QUEUES)], cwd=APPS, env=self._env(url, node.name, node.results), log=self.folder / f"{node.name}.log"
        )

    def mend(self) -> None:
        """Start again what has ended, as a supervisor does."""
        for node in self.nodes:
            if not node.alive:
                now = time.monotonic()
                self.incidents.append(Incident("ended", node.name, now, now))
                self.start(node)

    def _producer(self, seed: int) -> Running:
        url = self.producer_proxy.url if self.producer_proxy else self.url
        script = [sys.executable, str(APPS / "producer.py"), str(seed), str(self.acks), str(self.pace / 2), ",".join(self.kinds)]
        running = Running(script, cwd=APPS, env=self._env(url, "producer"), log=self.folder / "producers.log", stdin=subprocess.PIPE)
        self._stack.callback(end, running)
        return running

    def _end_nodes(self) -> None:
        for node in self.nodes:
            if node.running is not None:
                end(node.running)

    def quiet_producers(self) -> None:
        for producer in self.producers:
            assert producer.process.stdin is not None
            producer.process.stdin.close()
        for producer in self.producers:
            assert producer.exit_code(20) == 0, producer.tail()

    def depths(self) -> list[QueueDepth]:
        return list(self.broker.depth(QUEUES).values())

    def is_drained(self) -> bool:
        return not any((d.ready or 0) + (d.delayed or 0) + (d.claimed or 0) for d in self.depths())

    def drain(self, ended: Callable[[], bool]) -> bool:
        """Wait until nothing is left to do, with all nodes up; False if something is left and nothing has happened for a while.

        *ended* says so of results: not each broker knows what a worker holds or what is delayed, and what follows is not there yet.
        """
        idle_for = 30 + 6 * self.lease
        size, since = 0, time.monotonic()

        def done_or_stuck() -> bool:
            nonlocal size, since
            self.mend()
            if (now_size := self.ledger.stat().st_size) != size:
                size, since = now_size, time.monotonic()
            return (self.is_drained() and ended()) or time.monotonic() - since > idle_for

        wait_for(done_or_stuck, 1200)
        return self.is_drained() and ended()

    def stop_nodes(self) -> list[str]:
        """Stop all nodes warmly; return what was wrong with it."""
        for node in self.nodes:
            if node.alive:
                wait_for(lambda node=node: node.is_ready() or not node.alive, READY)
                node.running.send(signal.SIGTERM)
        wrong = []
        for node in self.nodes:
            assert node.running is not None
            code = node.running.exit_code(20)
            if code:
                wrong.append(f"{node.name} ({node.pool}) ended with {code} when it was told to stop")
        return wrong


def declare_all(broker: Broker) -> None:
    """Let all be declared that the run will use: RabbitMQ 3.10 writes every 5 s which queues it has; killed, it forgets younger ones."""
    broker.join("setup", QUEUES, lease=60)
    for queue in QUEUES:
        broker.publish([item(queue, f"{queue}-{n}", due=time.time() + 0.1) for n in range(2)])
        held, seq = [], itertools.count(1)

        def both_came(queue=queue, held=held, seq=seq) -> bool:
            held += broker.fetch(queue, 2 - len(held), owner="setup", seq=next(seq))
            return len(held) == 2

        wait_for(both_came, 20)
        assert broker.settle([settlement(each, verb) for each, verb in zip(held, (Verb.BURY, Verb.PARK), strict=True)]) == [True, True]
        assert broker.discard([*broker.dead(queue), *broker.parked(queue)]) == 2
    broker.leave("setup", QUEUES)
    goes_by(6.0)


def end(running: Running) -> None:
    """Kill a process and what it started, in its own session."""
    running.end_group()
    running.process.wait()


def compile_shim(folder: Path) -> Path | None:
    """Compile the clock that can be stepped; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    target = folder / "skew.so"
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(APPS / "skew.c")], capture_output=True, check=False)
    return target if done.returncode == 0 else None
