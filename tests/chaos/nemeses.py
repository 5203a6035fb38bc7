"""Nemeses: each does one kind of harm to a world, for a while, and undoes what can be undone. Chance is the world's own."""

import contextlib
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator
from typing import ClassVar

import psycopg
from tests.chaos.world import READY, Incident, Node, World
from tests.faults.conftest import goes_by
from tests.processes import TookTooLongError, wait_for


class Nemesis:
    """One kind of harm. `strike` is a block: the harm lasts while it runs."""

    kind: ClassVar[str]
    drivers: ClassVar[tuple[str, ...]] = ("redis", "sqlite", "postgresql", "sentinel", "amqp")
    pools: ClassVar[tuple[str, ...]] = ("prefork", "threads", "asyncio", "solo")
    lasts: ClassVar[tuple[float, float]] = (0.0, 0.0)  # seconds at least; leases at most, on top of them

    def __init__(self, world: World) -> None:
        self.world = world

    def attack(self) -> None:
        """Choose a victim, harm it for some time, and write the incident down."""
        fits = [node for node in self.world.nodes if node.pool in self.pools and node.alive]
        if not fits:
            return
        node = self.world.chance.choice(fits)
        low, leases = self.lasts
        seconds = low + self.world.chance.uniform(0, leases * self.world.lease)
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError), self.harm(node) as killed:
            goes_by(seconds)
        self.world.incidents.append(Incident(self.kind, self.where(node), began, time.monotonic(), tuple(killed)))

    def where(self, node: Node) -> str:
        return node.name

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        raise NotImplementedError


def killed(pids: list[int]) -> list[int]:
    """Kill all of *pids* that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


class KillChild(Nemesis):
    kind = "kill-child"
    pools = ("prefork", "threads", "asyncio")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        children = node.children()
        yield killed([self.world.chance.choice(children)] if children else [])


class KillParent(Nemesis):
    kind = "kill-parent"

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        tree = node.tree()
        killed([node.pid])
        yield tree  # none of them may live on


class KillZygote(Nemesis):
    kind = "kill-zygote"
    pools = ("prefork", "threads", "asyncio")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        zygote, children = node.zygote(), node.children()
        yield killed([zygote] if zygote else []) + children


class KillKeeper(Nemesis):
    kind = "kill-keeper"
    pools = ("solo",)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        keeper = node.zygote()
        yield killed([keeper] if keeper else [])


class KillNode(Nemesis):
    kind = "kill-node"

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        yield killed(node.tree())


class StopTree(Nemesis):
    kind = "stop-tree"
    lasts = (0.2, 2.0)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        tree = node.tree()
        with stopped(tree):
            yield []


class StopParent(StopTree):
    kind = "stop-parent"

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        with stopped([node.pid]):
            yield []


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes while the block runs; they go on in any case."""
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class RollingRestart(Nemesis):
    kind = "restart"

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        assert node.running is not None
        with contextlib.suppress(TookTooLongError):  # before it is ready it may be ended by the signal, and holds nothing
            wait_for(lambda: node.is_ready() or not node.alive, READY)
            node.running.send(signal.SIGTERM)
            code = node.running.exit_code(30)
            if code and not self.already_ending(node):
                self.world.wrong.append(f"{node.name} ({node.pool}) ended with {code} when it was told to stop")
        self.world.start(node)
        yield []

    def already_ending(self, node: Node) -> bool:
        """Answer whether it was about to end with an error, as its zygote had just been killed."""
        since = time.monotonic() - 40
        return any(i.kind == KillZygote.kind and i.node == node.name and i.began > since for i in self.world.incidents)


class BrokerKill(Nemesis):
    kind = "broker-kill"
    drivers = ("redis", "postgresql", "amqp")
    lasts = (0.1, 2.0)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        server = self.server()
        server.kill()
        try:
            yield []
        finally:
            server.start()

    def server(self):
        assert self.world.server is not None
        return self.world.server

    def where(self, node: Node) -> str:
        return ""


class BrokerStop(BrokerKill):
    kind = "broker-stop"
    drivers = ("redis", "postgresql")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        with stopped(self.server().pids()):
            yield []


class ResultsKill(BrokerKill):
    """The server that keeps results and workflows, and is not the broker."""

    kind = "results-kill"
    drivers = ("amqp+redis", "amqp+postgresql")

    def server(self):
        assert self.world.result_server is not None
        return self.world.result_server


class ResultsStop(BrokerStop):
    kind = "results-stop"
    drivers = ResultsKill.drivers
    server = ResultsKill.server


class Failover(Nemesis):
    """The master is killed, and comes back as a replica when the sentinels have chosen another and told it."""

    kind = "failover"
    drivers = ("sentinel",)
    lasts = (0.1, 2.0)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        watched = self.world.watched
        master = watched.master()
        master.kill()
        try:
            yield []
        finally:
            wait_for(lambda: watched.master() is not master, 30)
            master.start()
            wait_for(watched.settled, 60)

    def where(self, node: Node) -> str:
        return ""


class MasterStop(Failover):
    """The master is stopped; when it goes on, it may have lost its place, and not know it yet."""

    kind = "master-stop"

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        watched = self.world.watched
        master = watched.master()
        master.send(signal.SIGSTOP)
        try:
            yield []
        finally:
            master.send(signal.SIGCONT)
            wait_for(watched.settled, 60)


class ClockStep(Nemesis):
    """The wall clock of the broker (Redis), or of all workers (SQLite), jumps and stays so until the next jump."""

    kind = "clock-step"
    drivers = ("redis", "sqlite")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        self.world.step_clock(self.world.chance.uniform(-3, 3) * self.world.lease)
        yield []

    def where(self, node: Node) -> str:
        return ""


class NodeClockStep(Nemesis):
    """The wall clock of one node jumps and stays so; leases and due times go by the clock of the server."""

    kind = "node-clock-step"
    drivers = ("redis", "postgresql")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        self.world.step_clock(self.world.chance.uniform(-3, 3) * self.world.lease, node.name)
        yield []


class Link(Nemesis):
    """Harm to the connections between one node, or the producers, and the broker."""

    drivers = ("redis", "postgresql", "amqp")

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        proxy = self.world.producer_proxy if self.world.chance.random() < 0.2 else node.proxy
        if node.results is not None and self.world.chance.random() < 0.5:
            proxy = node.results
        assert proxy is not None
        try:
            self.on(proxy)
            yield []
        finally:
            proxy.thaw()
            proxy.refuse(False)
            proxy.drop(False)
            proxy.delay(0)

    def on(self, proxy) -> None:
        raise NotImplementedError


class Reset(Link):
    kind = "reset"

    def on(self, proxy) -> None:
        proxy.cut()


class Refuse(Link):
    kind = "refuse"
    lasts = (0.1, 1.5)

    def on(self, proxy) -> None:
        proxy.refuse(True)
        proxy.cut()


class Freeze(Link):
    kind = "freeze"
    lasts = (0.2, 1.5)

    def on(self, proxy) -> None:
        proxy.freeze()


class HalfOpen(Link):
    kind = "half-open"
    lasts = (0.2, 1.5)

    def on(self, proxy) -> None:
        requests = self.world.chance.random() < 0.5
        proxy.freeze(requests=requests, replies=not requests)


class Drop(Link):
    kind = "drop"
    lasts = (0.1, 0.5)

    def on(self, proxy) -> None:
        proxy.drop(True)


class Delay(Link):
    kind = "delay"
    lasts = (0.5, 1.0)

    def on(self, proxy) -> None:
        proxy.delay(self.world.chance.uniform(0.01, 0.15))


class LostReply(Link):
    """The next script, whatever it is (a claim, a settlement, a publish, a renewal), is carried out and its reply is lost."""

    kind = "lost-reply"
    lasts = (0.3, 0.0)

    def on(self, proxy) -> None:
        proxy.swallow(b"EVALSHA" if proxy.url.startswith("redis") else b"umbel.")


class LostStep(Link):
    """The reply to the next message of a workflow that is sent is lost: who sent it sends another copy of it."""

    kind = "lost-step"
    lasts = (0.3, 0.0)

    def on(self, proxy) -> None:
        proxy.swallow(b"umbel_flow")


class Terminate(Nemesis):
    """The server ends all connections, as an administrator does, or a failover."""

    kind = "terminate"
    drivers = ("postgresql",)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        ask = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'umbel'"
        with contextlib.suppress(psycopg.Error), psycopg.connect(self.world.url, autocommit=True) as connection:
            connection.execute(ask)
        yield []

    def where(self, node: Node) -> str:
        return ""


class DiskFull(Nemesis):
    """The parent of one node cannot make its files larger; for it, the disk is full."""

    kind = "disk-full"
    drivers = ("sqlite",)
    pools = ("prefork", "threads", "asyncio")
    lasts = (0.3, 1.5)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        largest = max((file.stat().st_size for file in self.world.folder.glob("umbel.sqlite3*")), default=0)
        pid = node.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(largest, 32768), resource.RLIM_INFINITY))
        try:
            yield []
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Locked(Nemesis):
    """Another program holds the write lock of the file: nobody can claim, settle or renew."""

    kind = "locked"
    drivers = ("sqlite",)
    lasts = (0.2, 2.0)

    @contextlib.contextmanager
    def harm(self, node: Node) -> Iterator[list[int]]:
        with contextlib.closing(sqlite3.connect(self.world.folder / "umbel.sqlite3", timeout=5, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield []
            connection.execute("ROLLBACK")

    def where(self, node: Node) -> str:
        return ""


NEMESES: tuple[type[Nemesis], ...] = (
    KillChild, KillParent, KillZygote, KillKeeper, KillNode, StopTree, StopParent, RollingRestart, BrokerKill, BrokerStop, ResultsKill,
    ResultsStop, Failover, MasterStop, ClockStep, NodeClockStep, Reset, Refuse, Freeze, HalfOpen, Drop, Delay, LostReply, LostStep,
    Terminate, DiskFull, Locked,
)  # fmt: skip
# A node that is stopped, cut off or without a disk for longer than its lease is taken for dead: its tasks may run beside their repeats.
# After a step of the clock a lease may seem over. A new master may lack the last claims of the old one, whose tasks run all the same.
SILENCING = frozenset(
    ("stop-tree", "stop-parent", "refuse", "freeze", "half-open", "drop", "disk-full", "clock-step", "failover", "master-stop")
)
# These must not repeat what has ended.
GENTLE = frozenset(("restart", "delay", "kill-keeper", "node-clock-step"))
