"""How much of a bare pool's rate is left when umbel fills it: coroutines that wait, threads that sleep, processes that compute.

Three cases: `-P asyncio -c 1000` with tasks of `await asyncio.sleep(0.1)`, beside a bare loop with a semaphore of 1000; `-P threads -c 50`
with tasks of `time.sleep(0.01)`, beside a ThreadPoolExecutor(50); `-P prefork -c 2` with 2 ms of pure Python, beside two bare processes.
Both sides run the same functions (peers/pools_work.py) and write a record at the end of each; results are off. The queue is full when the
worker starts. The clock runs from the first task's start (its record, less the length of a task) to the last record.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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
    redis_server,
    running,
    say,
    send,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import APPS, QUEUES, Queue

sys.path.insert(0, str(APPS))
from pools_work import SLEEP, WAIT, turn

UMBEL = QUEUES[0]
APP = Queue(name="umbel", module="pools_app", environment="", worker="umbel -A pools_app worker", stores=False, bulk=True)
COMPUTE = 0.002  # seconds of one task that computes
LIMIT = 180  # seconds for one run


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pool, how many tasks it runs at once, how long one takes, and how many there are."""

    pool: str
    slots: int
    length: float
    count: int


CASES = (
    Case(pool="asyncio", slots=1000, length=WAIT, count=20_000),
    Case(pool="threads", slots=50, length=SLEEP, count=25_000),
    Case(pool="prefork", slots=2, length=COMPUTE, count=5_000),
)


def calibrated():
    """How many turns of the loop take 2 ms on this machine: by the median of many tries."""
    turns, tries = 10_000, []
    for _ in range(101):
        begun = time.perf_counter()
        turn(turns)
        tries.append(time.perf_counter() - begun)
    return round(turns * COMPUTE / statistics.median(tries))


def with_umbel(case, server, env, folder):
    """Fill the queue, start a worker, wait for the last record."""
    server.clear()
    send(APP, case.pool, case.count, env=env)
    command = [*APP.command(), "-P", case.pool, "-c", str(case.slots)]
    with running(command, env=env, folder=folder) as worker:
        wait_until(lambda: count_of(env["BENCH_LEDGER"]) > 0, 60, "no task ended in 60 s")
        begun, used = count_of(env["BENCH_LEDGER"]), tree_cpu(worker.pid)
        wait_until(lambda: count_of(env["BENCH_LEDGER"]) >= case.count, LIMIT, f"not done in {LIMIT} s")
        used = tree_cpu(worker.pid) - used
        time.sleep(0.2)  # a repeat would show
        return used / max(1, case.count - begun) * 1e6


def bare(case, env):
    """Run the same in a bare pool."""
    command = [str(APP.python), str(APPS / "pools_bare.py"), case.pool, str(case.count), str(case.slots)]
    done = subprocess.run(command, env=env, cwd=APPS, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise BenchError(f"bare {case.pool}: {done.stderr.strip()[-800:]}")


def one_run(case, side, server, turns):
    """Run one side of one case and read its ledger."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        env = environment(server.url, ledger=Path(folder) / "ledger", BENCH_TURNS=str(turns))
        used = with_umbel(case, server, env, folder) if side == "umbel" else bare(case, env)
        found = records(env["BENCH_LEDGER"])
    stamps, numbers = [stamp for stamp, _ in found], {number for _, number in found}
    seconds = (max(stamps) - min(stamps)) / 1e9 + case.length
    return {
        "rate": len(numbers) / seconds,
        "worker_cpu_us_per_task": used,
        "missing": case.count - len(numbers),
        "repeated": len(found) - len(numbers),
    }


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--only", default="", help="asyncio, threads, prefork, with commas")
    parser.add_argument("--share", type=float, default=1.0, help="of the tasks; 0.1 for a quick look")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [case.pool for case in CASES]
    cases = [
        Case(pool=case.pool, slots=case.slots, length=case.length, count=max(case.slots, int(case.count * options.share)))
        for case in CASES
        if case.pool in wanted
    ]
    turns = calibrated()
    result = {"benchmark": "pools", "machine": machine(), "versions": versions([UMBEL]), "turns": turns, "cases": []}
    runs = {}
    with redis_server() as server:
        for number, (case, side) in interleaved([(case, side) for case in cases for side in ("umbel", "bare")], options.rounds):
            try:
                run = one_run(case, side, server, turns)
            except BenchError as exc:
                say(f"round {number}: {case.pool}, {side}: {exc}")
                continue
            runs.setdefault((case.pool, side), []).append(run)
            say(f"round {number}: {case.pool}, {side}: {run['rate']:,.0f}/s")
    result["cases"] = [condensed(case, runs) for case in cases if (case.pool, "umbel") in runs and (case.pool, "bare") in runs]
    show(result["cases"])
    finish(result, options)


def condensed(case, runs):
    """The medians of both sides, and what of the bare pool is left."""
    ours, theirs = runs[case.pool, "umbel"], runs[case.pool, "bare"]
    line = {
        "pool": case.pool,
        "slots": case.slots,
        "tasks": case.count,
        "ideal_rate": case.slots / case.length,
        "rate": summary(run["rate"] for run in ours),
        "bare_rate": summary(run["rate"] for run in theirs),
        "worker_cpu_us_per_task": summary(run["worker_cpu_us_per_task"] for run in ours),
    }
    line["over_bare"] = line["rate"]["median"] / line["bare_rate"]["median"]
    for name in ("missing", "repeated"):
        line[name] = sum(run[name] for run in ours)
    return line


def show(lines):
    """Print the table."""
    head = (
        "pool",
        "at once",
        "tasks",
        "umbel/s",
        "rounds/s",
        "bare/s",
        "rounds/s",
        "umbel/bare",
        "ideal/s",
        "worker us",
        "missing",
        "repeated",
    )
    rows = [
        (
            line["pool"],
            line["slots"],
            line["tasks"],
            f"{line['rate']['median']:,.0f}",
            f"{line['rate']['min']:,.0f}-{line['rate']['max']:,.0f}",
            f"{line['bare_rate']['median']:,.0f}",
            f"{line['bare_rate']['min']:,.0f}-{line['bare_rate']['max']:,.0f}",
            f"{line['over_bare']:.3f}",
            f"{line['ideal_rate']:,.0f}",
            f"{line['worker_cpu_us_per_task']['median']:.0f}",
            line["missing"],
            line["repeated"],
        )
        for line in lines
    ]
    table("umbel's pools beside bare ones (worker us: CPU per task, with that of the task)", head, rows)


if __name__ == "__main__":
    main()
