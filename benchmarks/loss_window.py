"""What a Redis server loses of what it acknowledged: killed, cut from power, or replaced by its replica.

A producer calls `delay()` as fast as it can and notes each id that was acknowledged. At a random moment the server dies; what comes
up after it is asked for its messages. Missing: acknowledged and not there. Window: how long before the death the oldest missing one
was acknowledged.

* kill: SIGKILL of the server, started again on the same append-only file. The system's page cache survives, as in every crash of a process.
* power cut: SIGKILL, then the append-only file is cut to what had been flushed to the disk. A small library (built with cc, put
  before libc by LD_PRELOAD) notes the length of the file at each fdatasync that ended. The disk itself is believed.
* failover: SIGKILL of the primary; when its replica has noticed, it is promoted. "behind": the replica had been stopped for half a second
  at this moment, and is promoted without reading what was on its way, as if that had been lost with the host of the primary.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from _harness import BenchError, answers, arguments, finish, free_port, machine, say, table, versions, wait_until
from _queues import QUEUES

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int fdatasync(int file) {
    static int (*real)(int), log = -1;
    struct stat before;
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (log < 0) log = open(getenv("BENCH_SYNCED"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    int known = fstat(file, &before), done = real(file);
    if (known == 0 && done == 0) dprintf(log, "%lu %lld\n", (unsigned long)before.st_ino, (long long)before.st_size);
    return done;
}
"""
BEHIND = 0.5  # seconds


class Server:
    """A Redis server of its own that can be killed and started again."""

    def __init__(self, folder, *, fsync, shim=None):
        import redis

        folder.mkdir()
        self.folder, self.port, self.fsync, self.shim = folder, free_port(), fsync, shim
        self.client = redis.Redis(port=self.port)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        """Start it on what it has kept."""
        keeps = ["--save", "", "--appendonly", "yes", "--appendfsync", self.fsync, "--auto-aof-rewrite-percentage", "0"]
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *keeps]
        env = dict(os.environ)
        if self.shim:
            env |= {"LD_PRELOAD": str(self.shim), "BENCH_SYNCED": str(self.folder / "synced")}
        fast = ["--loglevel", "warning", "--repl-diskless-sync-delay", "0"]
        self.process = subprocess.Popen([*command, *fast], env=env, stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(self.client), 20, "redis-server did not answer")

    def kill(self):
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def cut_power(self):
        """Kill it, and forget what was not flushed."""
        self.kill()
        flushed = dict(line.split() for line in (self.folder / "synced").read_text().splitlines())
        cut = 0
        for file in (self.folder / "appendonlydir").glob("*.aof"):
            if (known := flushed.get(str(file.stat().st_ino))) is not None:
                cut += file.stat().st_size - int(known)
                os.truncate(file, int(known))
        return cut


class Producer:
    """Calls until the server is gone."""

    def __init__(self, app, task):
        self.acknowledged = []  # (id, when)
        self._app, self._task = app, task
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        from umbel.exceptions import BrokerUnavailable

        number = 0
        with contextlib.suppress(BrokerUnavailable):
            while True:
                self._task.apply_async((number,), task_id=str(number), retry=False)
                self.acknowledged.append((number, time.monotonic()))
                number += 1

    def join(self):
        """Wait for its end."""
        self._thread.join(30)
        if self._thread.is_alive():
            raise BenchError("the producer did not notice the death of the server")


def present(client):
    """The numbers of the messages that a server has."""
    from umbel.wire.message import glance

    return {int(glance(raw).id) for raw in client.lrange("celery", 0, -1)}


def one_round(folder, case, shim, chance):
    """Let one server die; return how many were acknowledged, are missing, and the window in ms."""
    from umbel import Umbel

    how, fsync = case["how"], case["fsync"]
    with contextlib.ExitStack() as stack:
        server = Server(folder / "primary", fsync=fsync, shim=shim if how == "power cut" else None)
        stack.callback(lambda: server.process.poll() is None and server.kill())
        replica = None
        if how.startswith("failover"):
            replica = Server(folder / "replica", fsync=fsync)
            stack.callback(lambda: replica.process.poll() is None and replica.kill())
            replica.client.replicaof("127.0.0.1", server.port)
            wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", 20, "the replica did not connect")
        app = stack.enter_context(Umbel("loss", broker=server.url, broker_transport_options=case["options"], set_as_current=False))
        producer = Producer(app, app.task(lambda number: number, name="loss.noop"))
        time.sleep(chance.uniform(1.0, 3.0))
        if how == "failover, behind":
            replica.process.send_signal(signal.SIGSTOP)
            time.sleep(BEHIND)
        died = time.monotonic()
        if how == "power cut":
            server.cut_power()
        else:
            server.kill()
        producer.join()
        if replica is None:
            server.start()
            found = present(server.client)
        else:
            if how == "failover, behind":
                replica.process.send_signal(signal.SIGCONT)
            else:
                wait_until(lambda: replica.client.info("replication")["master_link_status"] == "down", 20, "the replica did not notice")
            replica.client.replicaof("NO", "ONE")
            found = present(replica.client)
    missing = [when for number, when in producer.acknowledged if number not in found]
    return len(producer.acknowledged), len(missing), (died - min(missing)) * 1e3 if missing else 0.0


def build_shim(folder):
    """Build the library that notes what was flushed; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        say("no C compiler: the power cut is left out")
        return None
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


CASES = (
    {"name": "everysec, kill", "how": "kill", "fsync": "everysec", "options": {}},
    {"name": "everysec, power cut", "how": "power cut", "fsync": "everysec", "options": {}},
    {"name": "always, kill", "how": "kill", "fsync": "always", "options": {}},
    {"name": "always, power cut", "how": "power cut", "fsync": "always", "options": {}},
    {"name": "failover", "how": "failover", "fsync": "everysec", "options": {}},
    {"name": "failover, replica 0.5 s behind", "how": "failover, behind", "fsync": "everysec", "options": {}},
    {"name": "failover, replicas=1", "how": "failover", "fsync": "everysec", "options": {"replicas": 1}},
    {"name": "failover, 0.5 s behind, replicas=1", "how": "failover, behind", "fsync": "everysec", "options": {"replicas": 1}},
)


def main():
    options = arguments(__doc__.splitlines()[0], rounds=10).parse_args()
    if shutil.which("redis-server") is None:
        raise SystemExit("There is no redis-server. Install it (apt-get install redis-server).")
    result = {"benchmark": "loss_window", "machine": machine(), "versions": versions([QUEUES[0]]), "cases": {}}
    chance, rows = random.Random(7), []
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as name:
        shim = build_shim(Path(name))
        for case in CASES:
            if case["how"] == "power cut" and shim is None:
                continue
            rounds = []
            for number in range(options.rounds):
                folder = Path(name) / f"{CASES.index(case)}-{number}"
                folder.mkdir()
                rounds.append(one_round(folder, case, shim, chance))
                shutil.rmtree(folder)
            acknowledged, missing = sum(each[0] for each in rounds), [each[1] for each in rounds]
            found = {
                "acknowledged": acknowledged,
                "rounds_with_loss": sum(count > 0 for count in missing),
                "missing_in_all": sum(missing),
                "missing_at_most": max(missing),
                "window_ms_at_most": max(each[2] for each in rounds),
            }
            result["cases"][case["name"]] = found
            rows.append([case["name"], *(f"{value:,.0f}" for value in found.values())])
            say(f"{case['name']}: {missing}")
    table(
        f"{options.rounds} deaths each",
        ("", "acknowledged", "deaths with loss", "missing", "at most, in one", "window ms, at most"),
        rows,
    )
    finish(result, options)


if __name__ == "__main__":
    main()
