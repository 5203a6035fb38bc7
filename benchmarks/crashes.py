"""What becomes of calls when something dies: umbel, Celery as it comes, and Celery set up to lose less.

Each scenario is done to each system with the same tasks, on a private Redis that flushes each write, with `-c 2` processes. The tasks
write into a ledger. What was called and has no run that ended is lost; or it is stuck, if the broker still has its message when the
scenario is given up, after `--patience` seconds.
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

import redis
from _harness import BenchError, arguments, finish, machine, say, table
from tests import servers
from tests.chaos.checker import read_ledger
from tests.compat.celery_env import celery_python
from tests.faults.conftest import PrivateRedis, goes_by
from tests.faults.proxy import Proxy
from tests.processes import Running, TookTooLongError, wait_for

from umbel.drivers import open_broker

ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "benchmarks" / "peers"
SYSTEMS = ("umbel", "celery", "celery-late")


class System:
    """One of the systems, on a Redis of its own, behind a proxy."""

    def __init__(self, name, folder, stack, patience):
        self.name, self.folder, self.stack, self.patience = name, folder, stack, patience
        (folder / "redis").mkdir()
        self.server = PrivateRedis(folder / "redis", servers.free_port())
        stack.callback(self.server.end)
        self.server.start()
        self.proxy = stack.enter_context(Proxy(self.server.url))
        self.python = sys.executable if name == "umbel" else str(celery_python())
        self.ledger = folder / "ledger"
        self.ledger.touch()
        path = os.pathsep.join(filter(None, (str(APPS), str(ROOT / "tests" / "chaos" / "apps"), os.environ.get("PYTHONPATH"))))
        self.env = {
            **os.environ, "CRASHES_SYSTEM": name, "CRASHES_URL": self.server.url, "CHAOS_LEDGER": str(self.ledger), "C_FORCE_ROOT": "1",
            "PYTHONPATH": path if name == "umbel" else os.pathsep.join(path.split(os.pathsep)[:2]),
        }  # fmt: skip
        self.count, self.called = 0, set()

    def worker(self, *, proxied=False):
        self.count += 1
        node = f"w{self.count}"
        module = "umbel" if self.name == "umbel" else "celery"
        url = self.proxy.url if proxied else self.server.url
        command = [self.python, "-m", module, "-A", "crashes_app", "worker", "-l", "INFO", "-c", "2", "-n", f"{node}@host"]
        env = {**self.env, "CRASHES_URL": url, "CHAOS_NODE": node}
        running = Running(command, cwd=APPS, env=env, log=self.folder / f"{node}.log")
        self.stack.callback(running.process.wait)
        self.stack.callback(running.end_group)
        running.waits_to_print(" ready.", 60)
        return running

    def call(self, task, keys, *args):
        """Call *task* once for each key; what returned is a promise."""
        code = f"from crashes_app import {task}\nfor key in {keys!r}: {task}.delay(key, *{args!r})"
        running = Running([self.python, "-c", code], cwd=APPS, env=self.env, log=self.folder / "calls.log")
        if running.exit_code(120):
            raise BenchError(running.tail())
        self.called.update(keys)

    def runs(self, key=None):
        runs, _ = read_ledger(self.ledger)
        return [run for run in runs if key is None or run.key == key]

    def done(self):
        return {run.key for run in self.runs() if run.ended is not None}

    def waits_for_all(self):
        """Wait until every call has a run that ended, or until it is in vain."""
        with contextlib.suppress(TookTooLongError):
            wait_for(lambda: self.done() >= self.called, self.patience)

    def report(self, **more):
        keys = [run.key for run in self.runs()]
        missing = len(self.called - self.done())
        stuck = min(missing, self.waiting()) if missing else 0
        return {
            "called": len(self.called), "lost": missing - stuck, "stuck": stuck, "extra runs": len(keys) - len(set(keys)), **more,
        }  # fmt: skip

    def waiting(self):
        """How many messages the broker still has: in the queue, claimed, and with Celery unacknowledged."""
        if self.name == "umbel":
            with contextlib.closing(open_broker(self.server.url)) as broker:
                depth = broker.depth(["celery"])["celery"]
                return depth.ready + depth.delayed + depth.claimed
        with redis.Redis.from_url(self.server.url) as client:
            return client.llen("celery") + client.hlen("unacked")


def again(system, kill):
    """Let a task start, kill something, and see whether and when it runs again."""
    system.call("held_up", ["k"], 600)
    wait_for(lambda: system.runs("k"), 30)
    at = time.monotonic()
    kill(system.runs("k")[0])
    system.waits_for_all()
    runs = system.runs("k")
    return system.report(**{"runs again after s": round(runs[1].began - at, 1) if len(runs) > 1 else None})


def child_killed(system):
    """`kill -9` of the child in the middle of its task."""
    system.worker()
    return again(system, lambda run: os.kill(run.pid, signal.SIGKILL))


def worker_killed(system):
    """`kill -9` of a whole worker in the middle of its task; another worker is there."""
    nodes = [system.worker(), system.worker()]
    goes_by(12)  # umbel takes nothing over in a worker's first ten seconds
    return again(system, lambda run: os.killpg(nodes[int(run.node[1:]) - 1].pid, signal.SIGKILL))


def broker_restarted(system):
    """`kill -9` of Redis in the middle of 500 tasks; it is back after two seconds."""
    system.worker()
    system.call("work", [f"k{n}" for n in range(500)], 0.02)
    wait_for(lambda: len(system.done()) >= 50, 60)
    system.server.kill()
    goes_by(2)
    system.server.start()
    before, back = len(system.done()), time.monotonic()
    with contextlib.suppress(TookTooLongError):
        wait_for(lambda: len(system.done()) > before + 10, system.patience)
    works_after = round(time.monotonic() - back, 1)
    system.waits_for_all()
    return system.report(**{"works after s": works_after})


def connections_reset(system):
    """All connections of the worker are reset, ten times in the middle of 500 tasks."""
    system.worker(proxied=True)
    system.call("work", [f"k{n}" for n in range(500)], 0.02)
    chance = random.Random(1)
    wait_for(lambda: len(system.done()) >= 20, 60)
    for _ in range(10):
        system.proxy.cut()
        goes_by(chance.uniform(0.3, 0.8))
    system.waits_for_all()
    return system.report()


def rolling_restart(system):
    """Two workers get SIGTERM in turn, every five seconds for half a minute, among 120 tasks of half a second."""
    nodes = [system.worker(), system.worker()]
    system.call("work", [f"k{n}" for n in range(120)], 0.5)
    for _ in range(3):
        for i in range(2):
            nodes[i].send(signal.SIGTERM)
            nodes[i].exit_code(60)
            nodes[i] = system.worker()
            goes_by(3)
    system.waits_for_all()
    return system.report()


def poison(system):
    """One task kills its process each time; 50 others wait behind it. Observed for thirty seconds."""
    system.worker()
    system.call("poison", ["p"])
    system.call("work", [f"k{n}" for n in range(50)], 0.02)
    system.called.discard("p")
    goes_by(30)
    starts = len(system.runs("p"))
    system.waits_for_all()
    return system.report(**{"starts of the poison": starts})


def warm_stop(system):
    """SIGTERM while two tasks of six seconds run and 18 wait, some of them in the worker; another worker starts at once."""
    first = system.worker()
    system.call("work", [f"k{n}" for n in range(20)], 6.0)
    wait_for(lambda: len(system.runs()) >= 2, 30)
    goes_by(1)
    first.send(signal.SIGTERM)
    at = time.monotonic()
    system.worker()
    system.worker()
    first.exit_code(120)
    left = round(time.monotonic() - at, 1)
    system.waits_for_all()
    return system.report(**{"gone after s": left, "all done after s": round(time.monotonic() - at, 1)})


def long_task(system):
    """A task of 200 seconds runs, and a second worker has nothing to do. Nothing is harmed."""
    system.worker()
    system.worker()
    system.call("work", ["k"], 200.0)
    system.waits_for_all()
    return system.report()


SCENARIOS = (child_killed, worker_killed, broker_restarted, connections_reset, rolling_restart, poison, warm_stop, long_task)


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--scenarios", default="", help="names with commas; all by default")
    parser.add_argument("--patience", type=float, default=180, help="seconds")
    options = parser.parse_args()
    wanted = [s for s in SCENARIOS if not options.scenarios or s.__name__ in options.scenarios.split(",")]
    rows = []
    for scenario in wanted:
        for name in options.systems.split(","):
            with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, contextlib.ExitStack() as stack:
                found = scenario(System(name, Path(folder), stack, options.patience))
            rows.append({"scenario": scenario.__name__, "system": name, **found})
            say(str(rows[-1]))
    plain = ("scenario", "system", "called", "lost", "stuck", "extra runs")
    rest = [", ".join(f"{k}: {v}" for k, v in row.items() if k not in plain) for row in rows]
    table("what became of the calls", (*plain, ""), [[*(row[k] for k in plain), more] for row, more in zip(rows, rest, strict=True)])
    finish({"benchmark": "crashes", "machine": machine(), "rows": rows}, options)


if __name__ == "__main__":
    main()
