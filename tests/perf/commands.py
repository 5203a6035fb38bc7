"""What a Redis is asked by its clients: their commands, without those that scripts call, and how often it reads from a socket."""

import re
import threading
import uuid
from collections import Counter
from importlib import resources
from typing import Self

import redis

from umbel.drivers.redis.client import load_script

LINE = re.compile(rb'\+[\d.]+ \[\d+ ([^\]]+)\] "(\w+)"(?: "(\w{40})")?')  # as MONITOR writes it; of a script's call the client is "lua"
DEADLINE = 20


def name_scripts() -> dict[str, str]:
    """Which script has which hash; the shared parts that a script is loaded with are not known here."""
    files = (resources.files("umbel.drivers.redis") / "scripts").iterdir()
    names = sorted(file.name.removesuffix(".lua") for file in files if file.name.endswith(".lua") and not file.name.startswith("_"))
    ways = [(), ("_ring",), ("_lib",), ("_ring", "_lib"), ("_flows",)]
    return {load_script(name, shared=shared).sha.decode(): name for name in names for shared in ways}


class Commands:
    """Sees what clients send during the block. The server must be a private one: it sees the commands of all."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._watching = redis.Redis.from_url(url).connection_pool.make_connection()
        self._lines: list[bytes] = []
        self._over = threading.Event()
        self._end = uuid.uuid4().hex.encode()
        self.sent: Counter[str] = Counter()  # when the block is left
        self.reads = 0  # from sockets: a pipeline is one, as long as it fits into the server's buffer of 16 KiB

    def __enter__(self) -> Self:
        self._client.ping()  # what a connection begins with does not count
        self._watching.connect()
        self._watching.send_command("MONITOR")
        assert self._watching.read_response() == b"OK"
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._reads = self._count_reads()
        return self

    def __exit__(self, *_: object) -> None:
        self.reads = self._count_reads() - self._reads - 1  # the first of these two is among them
        self._client.echo(self._end)
        assert self._over.wait(DEADLINE), "what MONITOR shows did not come"
        self._thread.join()
        self._watching.disconnect()
        self.sent = self._counted()
        self._client.close()

    def _count_reads(self) -> int:
        return int(self._client.info("stats")["total_reads_processed"])

    def _watch(self) -> None:
        sock, left = self._watching._sock, b""
        sock.settimeout(None)
        while not self._over.is_set():
            *lines, left = (left + sock.recv(1 << 20)).split(b"\r\n")
            self._lines += [line for line in lines if b" lua] " not in line[:60]]
            if any(self._end in line for line in lines):
                self._over.set()

    def _counted(self) -> Counter[str]:
        names, sent = name_scripts(), Counter[str]()
        for line in self._lines:
            found = LINE.match(line)
            assert found, line
            _, command, script = (part.decode() if part else "" for part in found.groups())
            if command not in {"INFO", "ECHO"}:
                sent[f"{command} {names.get(script, script)}".strip()] += 1
        return sent
