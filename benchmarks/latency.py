"""How long a call waits on an idle worker: `delay()` to the task's start, and to `get()`; with the CPU of that worker while it is idle.

umbel on Redis, on SQLite and on PostgreSQL (that of BENCH_PG_URL), Celery on Redis, results stored, one child. Each call is made alone,
after a pause of random length; the start is the record that the task writes, by the same clock. Idle CPU is that of the whole process tree
(and of the server) over some seconds.
"""

import contextlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    count_of,
    environment,
    finish,
    interleaved,
    machine,
    percentile,
    records,
    redis_server,
    running,
    say,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import APPS, QUEUES

import postgres

UMBEL, CELERY = QUEUES[0], QUEUES[1]


def measure(queue, url, options, cpu):
    """Run one worker, call it alone, then watch it do nothing."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(url or f"sqlite:///{folder}/umbel.sqlite3", results=True, ledger=ledger)
        command = [str(queue.python), str(APPS / "wait.py"), queue.module, str(options.count), str(options.pause)]
        with running(queue.command(), env=env, folder=folder) as worker:
            done = subprocess.run(command, env=env, cwd=APPS, capture_output=True, text=True, timeout=120 + options.count, check=False)
            if done.returncode:
                raise BenchError(f"{queue.name}: {done.stderr.strip()[-800:]}")
            wait_until(lambda: count_of(ledger) > options.count, 10, f"{queue.name}: the ledger has {count_of(ledger)} records")
            time.sleep(1)
            ours, theirs = tree_cpu(worker.pid), cpu() if cpu else 0
            time.sleep(options.seconds)
            ours, theirs = tree_cpu(worker.pid) - ours, (cpu() if cpu else 0) - theirs
        started = {number: stamp for stamp, number in records(ledger)}
    calls = json.loads(done.stdout)
    return {
        "delay_ms": [(sent - asked) / 1e6 for _, asked, sent, _ in calls],
        "start_ms": [(started[number] - asked) / 1e6 for number, asked, _, _ in calls],
        "get_ms": [(got - asked) / 1e6 for _, asked, _, got in calls],
        "idle_worker_cpu_percent": ours / options.seconds * 100,
        "idle_redis_cpu_percent": theirs / options.seconds * 100 if cpu else None,
    }


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=2, count=100)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two calls, on average")
    parser.add_argument("--seconds", type=float, default=10, help="how long the idle worker is watched")
    parser.add_argument("--only", default="", help="umbel/redis, umbel/sqlite, umbel/postgres, celery/redis, with commas")
    options = parser.parse_args()
    result = {
        "benchmark": "latency",
        "machine": machine(),
        "versions": versions([UMBEL, *([CELERY] if CELERY.installed else [])]),
        "cases": {},
    }
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis_server())
        cases = {"umbel/redis": (UMBEL, server.url, server.cpu), "umbel/sqlite": (UMBEL, None, None)}
        if CELERY.installed:
            cases["celery/redis"] = (CELERY, server.url, server.cpu)
        if postgres.there():
            url = stack.enter_context(postgres.database())
            cases["umbel/postgres"] = (UMBEL, url, lambda: postgres.server_cpu(url))
        wanted = options.only.split(",") if options.only else list(cases)
        runs = {}
        for number, name in interleaved([name for name in cases if name in wanted], options.rounds):
            server.clear()
            try:
                runs.setdefault(name, []).append(measure(cases[name][0], cases[name][1], options, cases[name][2]))
                say(f"round {number}: {name}")
            except BenchError as exc:
                say(f"round {number}: {name}: {exc}")
    for name, found in runs.items():
        result["cases"][name] = condensed(found)
    show(result["cases"])
    finish(result, options)


def condensed(runs):
    """Percentiles over the calls of all rounds."""
    line = {}
    for name in ("delay_ms", "start_ms", "get_ms"):
        values = [value for run in runs for value in run[name]]
        line[name] = {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": max(values), "calls": len(values)}
    for name in ("idle_worker_cpu_percent", "idle_redis_cpu_percent"):
        values = [run[name] for run in runs if run[name] is not None]
        line[name] = summary(values)
    return line


def show(cases):
    """Print the table."""
    head = ["ms", "delay p50", "p99", "start p50", "p99", "max", "get p50", "p99", "idle CPU %", "of the server %"]
    rows = []
    for name, line in cases.items():
        delay, start, got, redis = line["delay_ms"], line["start_ms"], line["get_ms"], line["idle_redis_cpu_percent"]
        values = [delay["p50"], delay["p99"], start["p50"], start["p99"], start["max"], got["p50"], got["p99"]]
        idle = [line["idle_worker_cpu_percent"]["median"], *([redis["median"]] if redis else [])]
        rows.append([name, *(f"{value:.2f}" for value in [*values, *idle]), *([] if redis else ["-"])])
    table("One call at a time on an idle worker", head, rows)


if __name__ == "__main__":
    main()
