"""Redis servers of the tests' own that belong together: a cluster, or a master with a replica and sentinels."""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from tests import servers
from tests.conftest import absent
from tests.processes import wait_for

SLOTS = 16384
NAME = "mymaster"


@dataclass
class Server:
    """One redis-server, or one sentinel."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None
    how: dict[str, Any] = field(default_factory=dict)  # to connect to it

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        listen = ["--port", "0", "--tls-port", str(self.port)] if "ssl" in self.how else ["--port", str(self.port)]
        command = [binary(), *self.options, "--bind", "127.0.0.1", *listen, "--dir", str(self.folder), "--save", ""]
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        wait_for(self._answers, 20, lambda: (self.folder / "log").read_text(errors="replace")[-2000:])

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, **self.how)

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    def send(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


def binary() -> str:
    found = servers.find_binary(servers.REDIS)
    if found is None:
        absent(servers.REDIS)
    return str(found)


def free_port() -> int:
    """A port whose neighbour ten thousand above, which the bus of a cluster takes, is free, too."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port


@contextlib.contextmanager
def running(folder: Path, *options: str, **how: Any) -> Iterator[Server]:
    server = Server(folder, free_port(), options, how=how)
    try:
        server.start()
        yield server
    finally:
        server.end()


@dataclass
class Cluster:
    """Masters, each with a third of the slots."""

    nodes: list[Server]
    scheme: str = "redis+cluster"

    @property
    def url(self) -> str:
        return self.scheme + "://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def owner(self, slot: int, asked: Server | None = None) -> Server:
        """Who has the slot, as *asked* says, or the first node."""
        ranges = (asked or self.nodes[0]).ask("CLUSTER SLOTS")
        ports = {int(master[1]) for low, high, master, *_ in ranges if low <= slot <= high}
        return next(node for node in self.nodes if node.port in ports)

    @staticmethod
    def replicas_of(master: Server) -> int:
        """How many replicas follow it."""
        with master.client() as client:
            said = client.info("replication")
        return sum(said.get(f"slave{n}", {}).get("state") == "online" for n in range(9))

    def move(self, slot: int, pause: Any = lambda: None) -> None:
        """Move a slot to another node, key by key, as redis-cli does; *pause* is called before each."""
        source = self.owner(slot)
        target = next(node for node in self.nodes if node is not source)
        names = {node.port: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            pause()
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        pause()
        for node in (target, source, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])


@contextlib.contextmanager
def cluster(
    folder: Path, *options: str, masters: int = 3, timeout: int = 20_000, replica_for: bytes | None = None, **how: Any
) -> Iterator[Cluster]:
    """A cluster that is ready; the master of the key *replica_for* has two replicas. A node is dead that is silent for *timeout* ms."""
    with contextlib.ExitStack() as stack:
        options = (*options, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout), "--appendonly", "no")
        options += ("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
        nodes = [stack.enter_context(running(folder / f"node{n}", *options, **how)) for n in range(masters + 2 * (replica_for is not None))]
        for number, node in enumerate(nodes):
            if number < masters:
                node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS * number // masters, SLOTS * (number + 1) // masters))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        made = Cluster(nodes)
        wait_for(lambda: all(ready(node, len(nodes), masters) for node in nodes), 30)
        if replica_for is not None:
            master = made.owner(key_slot(replica_for))
            for node in nodes[masters:]:
                node.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID").decode())
            wait_for(lambda: made.replicas_of(master) == 2, 30)
        yield made


def ready(node: Server, known: int, masters: int) -> bool:
    info = node.ask("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == known and int(info["cluster_size"]) == masters)


@dataclass
class Watched:
    """A master, its replicas, and who watches over them."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        return ";".join(f"sentinel://127.0.0.1:{each.port}" for each in self.sentinels) + "/0"

    @property
    def options(self) -> dict[str, Any]:
        return {"master_name": NAME}

    def master(self) -> Server:
        """Who is the master, as the sentinels say."""
        _, port = self.sentinels[-1].ask("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        return next(each for each in self.servers if each.port == int(port))

    def settled(self) -> bool:
        """Does every sentinel know the others and the replicas, which follow the master?"""
        for each in self.sentinels:
            state = each.ask("SENTINEL MASTERS")[NAME]
            if state["num-other-sentinels"] != len(self.sentinels) - 1 or state["num-slaves"] < 2 or state["flags"] != "master":
                return False
        return Cluster.replicas_of(self.master()) == len(self.servers) - 1


@contextlib.contextmanager
def watched(folder: Path, **options: str) -> Iterator[Watched]:
    """A master and two replicas, and three sentinels that have found each other."""
    with contextlib.ExitStack() as stack:
        keeps = ("--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0", *flags(options))
        master = stack.enter_context(running(folder / "one", *keeps))
        of = ("--replicaof", "127.0.0.1", str(master.port))
        replicas = [stack.enter_context(running(folder / f"replica{n}", *keeps, *of)) for n in range(2)]
        sentinels = [stack.enter_context(sentinel(folder / f"sentinel{n}", master.port)) for n in range(3)]
        made = Watched([master, *replicas], sentinels)
        wait_for(made.settled, 30)
        yield made


def flags(options: dict[str, str]) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]


@contextlib.contextmanager
def sentinel(folder: Path, master: int, *lines: str, **how: Any) -> Iterator[Server]:
    folder.mkdir(parents=True)
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor {NAME} 127.0.0.1 {master} 2\n"
        f"sentinel down-after-milliseconds {NAME} 500\n"
        f"sentinel failover-timeout {NAME} 3000\n"
        f"sentinel parallel-syncs {NAME} 1\n" + "".join(f"{line}\n" for line in lines)
    )
    server = Server(folder, free_port(), (str(configuration), "--sentinel"), how=how)
    try:
        server.start()
        yield server
    finally:
        server.end()
