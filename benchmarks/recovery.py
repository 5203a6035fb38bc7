"""How soon a task runs again after its child, or its whole node, was killed with SIGKILL.

Each incident is one kill; the figure is the time from the kill to the next run of the task, as its ledger says. Cases: a child of
the default pool; whole nodes, one after the other at random moments, beside a node that lives on and is idle, or has a long queue
of short tasks to do; a node in the middle of 10,000 short tasks, with what it had claimed; a node that held 2,000 claims, many
more than a worker claims by default. On a private Redis that flushes each write, and on SQLite.
"""

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _harness import BenchError, arguments, finish, machine, percentile, say, table, wait_until
from tests import servers
from tests.chaos.checker import read_ledger
from tests.chaos.world import APPS, Node
from tests.faults.conftest import PrivateRedis
from tests.processes import Running

from umbel.drivers import open_broker

CLAIMS = 2000


class Stage:
    """A broker, and workers of the chaos app."""

    def __init__(self, driver, lease, folder, stack):
        self.lease, self.folder, self.stack, self.count = lease, folder, stack, 0
        self.ledger = folder / "ledger"
        if driver == "redis":
            (folder / "redis").mkdir()
            server = PrivateRedis(folder / "redis", servers.free_port())
            stack.callback(server.end)
            server.start()
            self.url = server.url
        else:
            self.url = f"sqlite:///{folder}/umbel.sqlite3"
        self.env = {
            **os.environ, "CHAOS_BROKER": self.url, "CHAOS_BACKEND": self.url, "CHAOS_LEASE": str(lease), "CHAOS_LEDGER": str(self.ledger),
            "C_FORCE_ROOT": "1", "PYTHONPATH": os.pathsep.join(filter(None, (str(APPS), os.environ.get("PYTHONPATH")))),
        }  # fmt: skip

    def worker(self, *options):
        self.count += 1
        name = f"w{self.count}"
        command = [sys.executable, "-m", "umbel", "-A", "chaos_app", "worker", "-l", "INFO", "-n", name, *options]
        running = Running(command, cwd=APPS, env={**self.env, "CHAOS_NODE": name}, log=self.folder / f"{name}.log")
        self.stack.callback(running.process.wait)
        self.stack.callback(running.end_group)
        return Node(name, "prefork", None, running)

    def send(self, code):
        code = f"from chaos_app import *\n{code}"
        running = Running([sys.executable, "-c", code], cwd=APPS, env=self.env, log=self.folder / "send.log")
        if running.exit_code(60):
            raise BenchError(running.tail())

    def runs(self):
        """The runs of the tasks that are measured, by their key."""
        found = {}
        for run in read_ledger(self.ledger)[0] if self.ledger.exists() else []:
            if run.key.startswith("k"):
                found.setdefault(run.key, []).append(run)
        return found


def ready(nodes):
    for node in nodes:
        node.running.waits_to_print("ready.", 60)


def child_case(stage, incidents, chance):
    """Kill the child that runs the task, again and again."""
    ready([stage.worker("-c", "2")])
    seconds = []
    for i in range(incidents):
        stage.send(f"held_up.delay('k{i}', 60)")
        wait_until(lambda i=i: f"k{i}" in stage.runs(), 30, "the task did not start")
        time.sleep(chance.uniform(0, 0.5))
        at = time.monotonic()
        os.kill(stage.runs()[f"k{i}"][0].pid, signal.SIGKILL)
        wait_until(lambda i=i: len(stage.runs()[f"k{i}"]) > 1, 60, "it did not run again")
        seconds.append(stage.runs()[f"k{i}"][1].began - at)
    return seconds


def node_case(stage, incidents, chance, *, busy):
    """Let each of many nodes run one task, start one more, and kill the many at random moments."""
    victims = {node.name: node for node in [stage.worker("-c", "1") for _ in range(incidents)]}
    ready(victims.values())
    stage.send(f"[held_up.delay(f'k{{i}}', 600) for i in range({incidents})]")
    wait_until(lambda: len(stage.runs()) == incidents, 60, "the tasks did not start")
    if busy:
        stage.send("quick.delay_many([((f'b{i}', 0.02), {}) for i in range(20000)])")
    ready([stage.worker("-c", "2")])
    time.sleep(stage.lease + 2)  # a node takes nothing over in its first lease
    killed = {}
    for key, (run,) in chance.sample(sorted(stage.runs().items()), incidents):
        time.sleep(chance.uniform(0, 0.5 * stage.lease / incidents))
        killed[key] = time.monotonic()
        os.killpg(victims[run.node].pid, signal.SIGKILL)
    wait_until(lambda: all(len(runs) > 1 for runs in stage.runs().values()), 10 * stage.lease + 60, "not all ran again")
    return [runs[1].began - killed[key] for key, runs in stage.runs().items()]


def long_case(stage, incidents, chance):  # noqa: ARG001 - one incident of two tasks
    """Kill a node that runs two long tasks, which take as long when they run again."""
    victim = stage.worker("-c", "2")
    ready([victim])
    stage.send("[long.delay(f'k{i}', 600) for i in range(2)]")
    wait_until(lambda: len(stage.runs()) == 2, 60, "the tasks did not start")
    ready([stage.worker("-c", "2")])
    time.sleep(stage.lease + 2 + chance.uniform(0, stage.lease / 4))
    at = time.monotonic()
    os.killpg(victim.pid, signal.SIGKILL)
    wait_until(lambda: all(len(runs) > 1 for runs in stage.runs().values()), stage.lease + 60, "not all ran again")
    return [runs[1].began - at for runs in stage.runs().values()]


def flood_case(stage, incidents, chance):  # noqa: ARG001 - one incident, with as many claims as a default worker holds
    """Two nodes run short tasks as fast as they can; one is killed with all that it has claimed."""
    nodes = [stage.worker("-c", "2") for _ in range(2)]
    ready(nodes)
    time.sleep(stage.lease + 2)
    stage.send("held_up.delay_many([((f'k{i}', 0), {}) for i in range(10000)])")
    wait_until(lambda: len(stage.runs()) > 2000, 60, "the tasks did not start")
    at = time.monotonic()
    os.killpg(nodes[0].pid, signal.SIGKILL)
    wait_until(lambda: len(stage.runs()) == 10000, stage.lease + 120, "not all ran")
    seconds = [run.began - at for runs in stage.runs().values() for run in runs if run.detail == "again"]
    if not seconds:
        raise BenchError("the killed node held nothing")
    return seconds


def many_case(stage, incidents, chance):  # noqa: ARG001 - one incident with many claims
    """A node claims 2,000 messages and is never heard of again."""
    stage.send(f"quick.delay_many([((f'k{{i}}',), {{}}) for i in range({CLAIMS})])")
    broker = open_broker(stage.url)
    broker.join("celery@gone:1", ["celery"], lease=stage.lease)
    claimed = sum(len(broker.fetch("celery", 500, owner="celery@gone:1", seq=seq)) for seq in range(1, CLAIMS // 500 + 1))
    if claimed != CLAIMS:
        raise BenchError(f"claimed {claimed} of {CLAIMS}")
    ready([stage.worker("-c", "2")])
    deadline = time.monotonic() + stage.lease + 2
    while time.monotonic() < deadline:
        time.sleep(0.1)
        broker.renew("celery@gone:1", ["celery"], lease=stage.lease)
    at = time.monotonic()
    wait_until(lambda: len(stage.runs()) == CLAIMS, stage.lease + 60, "not all ran")
    broker.close()
    return [runs[0].began - at for runs in stage.runs().values()]


CASES = {
    "child": child_case,
    "node, others idle": lambda *args: node_case(*args, busy=False),
    "node, others busy": lambda *args: node_case(*args, busy=True),
    "node of two long tasks": long_case,
    "node full of short tasks": flood_case,
    f"node with {CLAIMS} claims": many_case,
}


def main():
    parser = arguments(__doc__)
    parser.add_argument("--incidents", type=int, default=10)
    parser.add_argument("--leases", default="10", help="seconds, with commas")
    parser.add_argument("--drivers", default="redis,sqlite")
    parser.add_argument("--cases", default="", help="a part of their names")
    options = parser.parse_args()
    rows = []
    for driver in options.drivers.split(","):
        for lease in map(float, options.leases.split(",")):
            for name, case in CASES.items():
                if options.cases not in name:
                    continue
                say(f"{driver}, lease {lease:g} s, {name}")
                seconds = []
                for number in range(options.rounds):
                    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, contextlib.ExitStack() as stack:
                        stage = Stage(driver, lease, Path(folder), stack)
                        seconds += case(stage, options.incidents, random.Random(number))
                rows.append({
                    "driver": driver, "lease": lease, "case": name, "measured": len(seconds), "p50": percentile(seconds, 0.5),
                    "p99": percentile(seconds, 0.99), "max": max(seconds),
                })  # fmt: skip
                say(str(rows[-1]))
    head = ("driver", "lease", "case", "measured", "p50 s", "p99 s", "max s")
    table(
        "seconds from the kill to the next run",
        head,
        [[r["driver"], f"{r['lease']:g}", r["case"], r["measured"], *(f"{r[k]:.2f}" for k in ("p50", "p99", "max"))] for r in rows],
    )
    finish({"benchmark": "recovery", "machine": machine(), "rows": rows}, options)


if __name__ == "__main__":
    main()
