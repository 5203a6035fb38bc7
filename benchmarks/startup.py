"""What it costs to start: `import umbel`, `umbel --help`, a worker until it is ready, and its memory when it is idle, beside Celery.

Times are medians of fresh processes, with a bare interpreter beside them. A worker is ready when its log says so (`-l INFO`, one child).
Memory is the proportional set size (PSS: a shared page counts by its share) of the whole process tree, from /proc/*/smaps_rollup, when
the worker has run one task and is idle again.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    chosen,
    count_of,
    environment,
    finish,
    interleaved,
    machine,
    redis_server,
    running,
    say,
    send,
    summary,
    table,
    tree_cpu,
    tree_memory,
    versions,
    wait_until,
)
from _queues import QUEUES

UMBEL, CELERY = QUEUES[0], QUEUES[1]
DRIVERS = ("redis", "hiredis", "psycopg", "sqlite3", "django", "click", "rich", "msgspec", "kombu", "asyncio")
IMPORT = """
import sys, time
before, start = set(sys.modules), time.perf_counter()
{line}
took = time.perf_counter() - start
import json
names = set(sys.modules) - before
print(json.dumps({{"ms": took * 1000, "modules": len(names), "packages": sorted({{name.partition(".")[0] for name in names}})}}))
"""


def timed(command, env):
    """Milliseconds of one whole process."""
    start = time.perf_counter()
    subprocess.run(command, env=env, capture_output=True, check=True, timeout=60)
    return (time.perf_counter() - start) * 1000


def imports(queue, line, env):
    """What one import costs inside a fresh interpreter."""
    done = subprocess.run([queue.python, "-c", IMPORT.format(line=line)], env=env, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def import_times(rounds, env):
    """Measure the imports and the help pages, interleaved."""
    lines = {
        "import umbel": (UMBEL, "import umbel"),
        "from umbel import Celery, shared_task": (UMBEL, "from umbel import Celery, shared_task"),
        "from celery import Celery, shared_task": (CELERY, "from celery import Celery, shared_task\nCelery, shared_task"),
    }
    programs = {
        "python -c pass": [str(UMBEL.python), "-c", "pass"],
        "umbel --help": [str(UMBEL.bin / "umbel"), "--help"],
        "celery --help": [str(CELERY.bin / "celery"), "--help"],
    }
    found, modules = {}, {}
    for queue, line in lines.values():
        imports(queue, line, env)  # compiles what was not
    for command in programs.values():
        timed(command, env)
    for _, name in interleaved([*lines, *programs], rounds):
        if name in programs:
            value = timed(programs[name], env)
        else:
            seen = imports(*lines[name], env)
            value = seen["ms"]
            modules[name] = {"modules": seen["modules"], "of_interest": [each for each in DRIVERS if each in seen["packages"]]}
        found.setdefault(name, []).append(value)
    return {name: summary(values) for name, values in found.items()}, modules


def ready_time(queue, server):
    """Milliseconds from the start of a worker's process to the line in its log that says it is ready."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        log, start = Path(folder) / "worker.log", time.perf_counter()
        with running([*queue.command(), "-l", "INFO"], env=environment(server.url), folder=folder):
            wait_until(lambda: b" ready." in log.read_bytes(), 60, f"{queue.name}: not ready in 60 s", pause=0.002)
            return (time.perf_counter() - start) * 1000


def idle_worker(queue, results, server, seconds):
    """Start a worker, let it run one task, and look at it when it is idle."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, results=results, ledger=ledger)
        start = time.monotonic()
        with running(queue.command(), env=env, folder=folder) as worker:
            send(queue, "loop", 1, env=env)
            wait_until(lambda: count_of(ledger) > 0, 60, f"{queue.name}: no task started in 60 s")
            ready = time.monotonic() - start
            time.sleep(1)  # what it does after a task is over
            used = tree_cpu(worker.pid)
            time.sleep(seconds)
            used = tree_cpu(worker.pid) - used
            memory, processes = tree_memory(worker.pid)
    return {"pss_mb": memory, "processes": processes, "idle_cpu_percent": used / seconds * 100, "first_task_s": ready}


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=15, queues=True)
    parser.add_argument("--workers", type=int, default=3, help="rounds of idle workers")
    parser.add_argument("--seconds", type=float, default=3, help="how long each is watched")
    parser.set_defaults(only="umbel,celery")
    options = parser.parse_args()
    queues = chosen(options.only)
    result = {"benchmark": "startup", "machine": machine(), "versions": versions(queues)}
    result["ms"], result["modules"] = import_times(options.rounds, environment("redis://127.0.0.1:1/0"))
    result["workers"] = {}
    with redis_server() as server:
        ready, runs = {}, {}
        for _, queue in interleaved([queue for queue in queues if queue in (UMBEL, CELERY)], options.workers):
            try:
                ready.setdefault(f"{queue.name} worker to ready", []).append(ready_time(queue, server))
            except BenchError as exc:
                say(str(exc))
        result["ms"] |= {name: summary(values) for name, values in ready.items()}
        for _, queue in interleaved(queues, options.workers):
            try:
                runs.setdefault(queue.name, []).append(idle_worker(queue, False, server, options.seconds))
            except BenchError as exc:
                say(str(exc))
    for name, found in runs.items():
        result["workers"][name] = {key: summary(run[key] for run in found) for key in found[0]}
    show(result)
    finish(result, options)


def show(result):
    """Print the tables."""
    modules = result["modules"]
    table(
        "Start (ms, median of fresh processes)",
        ("what", "median", "min", "modules", "of interest"),
        [
            (
                name,
                f"{times['median']:.1f}",
                f"{times['min']:.1f}",
                modules[name]["modules"] if name in modules else "",
                " ".join(modules[name]["of_interest"]) if name in modules else "",
            )
            for name, times in result["ms"].items()
        ],
    )
    table(
        "An idle worker with one child",
        ("queue", "PSS MB", "processes", "idle CPU %", "to its first task s"),
        [
            (
                name,
                f"{found['pss_mb']['median']:.1f}",
                int(found["processes"]["median"]),
                f"{found['idle_cpu_percent']['median']:.2f}",
                f"{found['first_task_s']['median']:.2f}",
            )
            for name, found in result["workers"].items()
        ],
    )


if __name__ == "__main__":
    main()
