"""umbel on PostgreSQL: calls sent one by one and in bulk, and drained by one worker with one child; beside procrastinate.

The server is that of BENCH_PG_URL, with the durability it has (`fsync`, `synchronous_commit` are part of the result); each round has a new
database of its own there. The drain's clock is that of drain.py. `--held` first drains many tasks while another transaction has had
a snapshot open from the beginning, so that the server can vacuum nothing, and then compares the rates: the first tenth and the last.
"""

import contextlib
import os
import tempfile
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from _harness import (
    BenchError,
    arguments,
    count_of,
    environment,
    finish,
    interleaved,
    machine,
    records,
    running,
    say,
    send,
    store,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import APPS, QUEUES

UMBEL = QUEUES[0]
PROCRASTINATE = next(queue for queue in QUEUES if queue.name == "procrastinate")
PG_URL = os.environ.get("BENCH_PG_URL", "postgresql://postgres@127.0.0.1:5432/test")
WARMUP = 50
AHEAD = 15_000  # calls that may wait while others are sent
LIMIT = 300  # seconds for one drain


def there():
    """Is there a server at BENCH_PG_URL?"""
    try:
        psycopg.connect(PG_URL, connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


@contextlib.contextmanager
def database():
    """The URL of a new database, dropped afterwards."""
    name = f"umbel_bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(PG_URL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(PG_URL)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def snapshot(url, *, held):
    """A transaction that sees the database as it is now, and has written, too, for as long as the block lasts."""
    if not held:
        yield
        return
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("CREATE TEMPORARY TABLE mine (x integer)")
        connection.execute("SELECT count(*) FROM mine")
        yield
        connection.rollback()


def server_cpu(url):
    """Seconds of CPU that the processes of the server have used, where it runs on this machine."""
    with psycopg.connect(url) as connection:
        pid = int(Path(connection.execute("SHOW data_directory").fetchone()[0], "postmaster.pid").read_text().split()[0])
    return tree_cpu(pid)


def drained(queue, env, folder, ledger, count, url):
    """Run a worker until *count* tasks have run."""
    with running(queue.command(), env=env, folder=folder) as worker:
        wait_until(lambda: count_of(ledger) > 0, 60, "no task started in 60 s")
        begun, used, theirs = count_of(ledger), tree_cpu(worker.pid), server_cpu(url)
        wait_until(lambda: count_of(ledger) >= count, LIMIT, f"not drained in {LIMIT} s")
        used, theirs = tree_cpu(worker.pid) - used, server_cpu(url) - theirs
        time.sleep(0.2)  # a repeat would show
    found, done = records(ledger), max(1, count - begun)
    seconds = (max(stamp for stamp, _ in found) - min(stamp for stamp, _ in found)) / 1e9
    numbers = {number for _, number in found}
    return {
        "drain_rate": (len(numbers) - 1) / seconds,
        "worker_cpu_us_per_task": used / done * 1e6,
        "server_cpu_us_per_task": theirs / done * 1e6,
        "missing": count - len(numbers),
        "repeated": len(found) - len(numbers),
    }


def ours(results, options):
    """Send in a loop and in bulk to databases of their own; drain the second."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, database() as url:
        ledger = Path(folder) / "ledger"
        env = environment(url, results=results, ledger=ledger)
        loop = send(UMBEL, "loop", options.count // 10, env=env, warmup=WARMUP)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA umbel CASCADE")
        bulk = send(UMBEL, "bulk", options.count, env=env, warmup=WARMUP)
        rates = {"loop_rate": loop["count"] / loop["seconds"], "bulk_rate": bulk["count"] / bulk["seconds"]}
        return rates | drained(UMBEL, env, folder, ledger, options.count + WARMUP, url)


def theirs(_results, options):
    """The same with procrastinate, which stores no results; fewer tasks, as a rate needs no more."""
    if failed := store(PROCRASTINATE, "make"):
        raise BenchError(f"procrastinate: {failed[-800:]}")
    with contextlib.ExitStack() as stack:
        stack.callback(store, PROCRASTINATE, "drop")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbel-bench-"))
        ledger, count = Path(folder) / "ledger", min(options.count, PROCRASTINATE.most)
        env = environment(PG_URL, ledger=ledger)
        loop = send(PROCRASTINATE, "loop", count // 10, env=env)
        bulk = send(PROCRASTINATE, "bulk", count, env=env)
        rates = {"loop_rate": loop["count"] / loop["seconds"], "bulk_rate": bulk["count"] / bulk["seconds"]}
        run = rates | drained(PROCRASTINATE, env, folder, ledger, count, PG_URL)
        return run | {"repeated": run["repeated"] - count // 10, "missing": 0}


def steady(count, *, held):
    """Send and drain *count* tasks at the same time; return the rates of each tenth, and the size of the database."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, database() as url:
        ledger = Path(folder) / "ledger"
        env = environment(url, results=False, ledger=ledger)
        send(UMBEL, "bulk", 0, env=env, warmup=1)
        command = [str(UMBEL.python), str(APPS / "steady.py"), str(count), str(AHEAD)]
        with snapshot(url, held=held), running(UMBEL.command(), env=env, folder=folder), running(command, env=env, folder=folder):
            wait_until(lambda: count_of(ledger) >= count + 1, LIMIT, "not drained")
            with psycopg.connect(url) as connection:
                size = connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]
        stamps = sorted(stamp for stamp, _ in records(ledger))
    tenth = len(stamps) // 10
    rates = [(tenth - 1) / (stamps[(n + 1) * tenth - 1] - stamps[n * tenth]) * 1e9 for n in range(10)]
    return {"rates": rates, "first_tenth": rates[0], "last_tenth": rates[-1], "rate": (len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1e9,
            "database_mb": size / 1e6}  # fmt: skip


def settings():
    """What the server promises."""
    with psycopg.connect(PG_URL) as connection:
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in names}


def held_up(options, result):
    """Compare draining beside a held snapshot with draining without one."""
    runs = {"clean": [], "held": []}
    for number, name in interleaved(list(runs), options.rounds):
        run = steady(options.held, held=name == "held")
        runs[name].append(run)
        say(f"round {number}: {name}: {run['rate']:,.0f}/s; by tenths {', '.join(f'{rate:,.0f}' for rate in run['rates'])}")
    lines = {name: {key: summary(run[key] for run in found) for key in found[0] if key != "rates"} for name, found in runs.items()}
    result["snapshot"] = {
        "tasks": options.held,
        "cases": lines,
        "tenths": {name: [run["rates"] for run in found] for name, found in runs.items()},
    }
    result["snapshot"]["held_over_clean"] = lines["held"]["rate"]["median"] / lines["clean"]["rate"]["median"]
    result["snapshot"]["last_tenth_held_over_clean"] = lines["held"]["last_tenth"]["median"] / lines["clean"]["last_tenth"]["median"]
    rows = [
        (name, *(f"{line[key]['median']:,.0f}" for key in ("rate", "first_tenth", "last_tenth", "database_mb")))
        for name, line in lines.items()
    ]
    table(
        f"umbel on PostgreSQL, {options.held:,} tasks beside a transaction",
        ("snapshot", "tasks/s", "first tenth", "last tenth", "MB"),
        rows,
    )
    say(
        f"  held over clean: {result['snapshot']['held_over_clean']:.2f}, last tenth {result['snapshot']['last_tenth_held_over_clean']:.2f}"
    )


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=20_000)
    parser.add_argument(
        "--held", type=int, default=0, help="tasks to drain beside a held snapshot (300000 for the promise); 0: only the rates"
    )
    parser.add_argument("--only", default="", help="results off, results on, procrastinate; with commas")
    options = parser.parse_args()
    result = {"benchmark": "postgres", "machine": machine(), "versions": versions([UMBEL]), "server": settings(), "cases": {}}
    if options.held:
        held_up(options, result)
        finish(result, options)
        return
    cases = {"results off": (ours, False), "results on": (ours, True)}
    if PROCRASTINATE.installed:
        cases["procrastinate"] = (theirs, False)
    wanted = options.only.split(",") if options.only else list(cases)
    runs = {}
    for number, name in interleaved([name for name in cases if name in wanted], options.rounds):
        measure, results = cases[name]
        try:
            run = measure(results, options)
        except BenchError as exc:
            say(f"round {number}: {name}: {exc}")
            continue
        runs.setdefault(name, []).append(run)
        say(f"round {number}: {name}: {run['loop_rate']:,.0f}, {run['bulk_rate']:,.0f} sent/s, {run['drain_rate']:,.0f} drained/s")
    for name, found in runs.items():
        result["cases"][name] = {key: summary(run[key] for run in found) for key in found[0]}
    keys = ("loop_rate", "bulk_rate", "drain_rate", "worker_cpu_us_per_task", "server_cpu_us_per_task", "missing", "repeated")
    rows = [(name, *(f"{line[key]['median']:,.0f}" for key in keys)) for name, line in result["cases"].items()]
    table("umbel on PostgreSQL", ("medians", "loop/s", "bulk/s", "drain/s", "worker us", "server us", "missing", "repeated"), rows)
    finish(result, options)


if __name__ == "__main__":
    main()
