"""umbel on its embedded SQLite file: calls sent one by one and in bulk, and drained by one worker with one child.

Each round has a new file in the temporary folder (TMPDIR says which disk). The drain's clock is that of drain.py.
"""

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
    records,
    running,
    say,
    send,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import QUEUES

UMBEL = QUEUES[0]
WARMUP = 50


def one_round(results, options):
    """Send in a loop and in bulk to files of their own; drain the second."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(f"sqlite:///{folder}/loop.sqlite3", results=results, ledger=ledger)
        loop = send(UMBEL, "loop", options.count // 10, env=env, warmup=WARMUP)
        env = environment(f"sqlite:///{folder}/bulk.sqlite3", results=results, ledger=ledger)
        bulk = send(UMBEL, "bulk", options.count, env=env, warmup=WARMUP)
        count = options.count + WARMUP
        with running(UMBEL.command(), env=env, folder=folder) as worker:
            wait_until(lambda: count_of(ledger) > 0, 60, "no task started in 60 s")
            begun, used = count_of(ledger), tree_cpu(worker.pid)
            wait_until(lambda: count_of(ledger) >= count, 120, "not drained in 120 s")
            used = (tree_cpu(worker.pid) - used) / max(1, count - begun) * 1e6
            time.sleep(0.2)  # a repeat would show
        found = records(ledger)
        size = (Path(folder) / "bulk.sqlite3").stat().st_size
    seconds = (max(stamp for stamp, _ in found) - min(stamp for stamp, _ in found)) / 1e9
    numbers = {number for _, number in found}
    return {
        "loop_rate": loop["count"] / loop["seconds"],
        "bulk_rate": bulk["count"] / bulk["seconds"],
        "drain_rate": (len(numbers) - 1) / seconds,
        "worker_cpu_us_per_task": used,
        "missing": count - len(numbers),
        "repeated": len(found) - len(numbers),
        "file_mb": size / 1e6,
    }


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=5, count=10_000)
    options = parser.parse_args()
    result = {"benchmark": "sqlite", "machine": machine(), "versions": versions([UMBEL]), "cases": {}}
    runs = {}
    for number, results in interleaved([False, True], options.rounds):
        name = f"results {'on' if results else 'off'}"
        try:
            run = one_round(results, options)
        except BenchError as exc:
            say(f"round {number}: {name}: {exc}")
            continue
        runs.setdefault(name, []).append(run)
        say(f"round {number}: {name}: {run['loop_rate']:,.0f}, {run['bulk_rate']:,.0f} sent/s, {run['drain_rate']:,.0f} drained/s")
    for name, found in runs.items():
        result["cases"][name] = {key: summary(run[key] for run in found) for key in found[0]}
    head = ("medians", "loop/s", "bulk/s", "drain/s", "worker us", "missing", "repeated", "file MB")
    rows = []
    for name, line in result["cases"].items():
        value = {key: found["median"] for key, found in line.items()}
        rates = [f"{value[key]:,.0f}" for key in ("loop_rate", "bulk_rate", "drain_rate", "worker_cpu_us_per_task", "missing", "repeated")]
        rows.append((name, *rates, f"{value['file_mb']:.1f}"))
    table("umbel on SQLite", head, rows)
    finish(result, options)


if __name__ == "__main__":
    main()
