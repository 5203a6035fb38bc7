"""What one task per second that kills its process costs the others: the throughput of short tasks with and without it.

Each run: an empty database, the queue is filled with tasks of one millisecond, a worker with two processes starts. In every other run a
poison task is sent each second, at the head of what waits, so that it runs among the others: it is started three times, each time kills
its process, and is buried. The clock runs from the first record of the ledger to the last. Runs with and without alternate; the result is
the median of each, and of the ratios of the pairs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _harness import APPS, BenchError, arguments, count_of, environment, finish, machine, records, redis_server, running, say, summary

EVERY = 1.0  # seconds between two poison tasks
SEND = "import sys; from poison_app import *; short.delay_many([((n,), {}) for n in range(int(sys.argv[1]))])"
FEED = "import sys, time; from poison_app import *\nwhile True:\n  poison.delay()\n  time.sleep(float(sys.argv[1]))"


def main():
    """Run the pairs."""
    options = arguments(__doc__, rounds=5, count=30_000).parse_args()
    pairs, buried = [], []
    with redis_server() as server:
        for number in range(options.rounds):
            order = (False, True) if number % 2 else (True, False)
            rates = {poisoned: drain(server, options.count, poisoned=poisoned, buried=buried) for poisoned in order}
            pairs.append(rates)
            say(f"round {number + 1}: {rates[False]:,.0f}/s without, {rates[True]:,.0f}/s with: {rates[True] / rates[False]:.1%}")
    result = {
        "benchmark": "poison", "machine": machine(), "count": options.count, "poison_every_seconds": EVERY,
        "without_per_second": summary([pair[False] for pair in pairs]), "with_per_second": summary([pair[True] for pair in pairs]),
        "kept": round(statistics.median(pair[True] / pair[False] for pair in pairs), 3), "buried_per_run": buried,
    }  # fmt: skip
    finish(result, options)


def drain(server, count, *, poisoned, buried):
    """Fill and drain once; return short tasks per second."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, ledger=ledger)
        subprocess.run([sys.executable, "-c", SEND, str(count)], env=env, cwd=APPS, check=True)
        ledger.write_bytes(b"")
        command = [sys.executable, "-m", "umbel", "-A", "poison_app", "worker", "-P", "prefork", "-c", "2", "-l", "ERROR", "-q"]
        with running(command, env=env, folder=folder) as worker:
            feeder = subprocess.Popen([sys.executable, "-c", FEED, str(EVERY)], env=env, cwd=APPS) if poisoned else None
            try:
                wait(worker, ledger, count)
            finally:
                if feeder is not None:
                    feeder.kill()
                    feeder.wait()
        if poisoned:
            buried.append(server.client.zcard("{celery}.dead"))
        return rate(records(ledger), count)


def wait(worker, ledger, count):
    """Wait for the last short task."""
    deadline = time.monotonic() + 120
    while count_of(ledger) < count:
        if worker.poll() is not None:
            raise BenchError(f"the worker ended with {worker.returncode}")
        if time.monotonic() > deadline:
            raise BenchError(f"only {count_of(ledger)} of {count} after 120 s")
        time.sleep(0.01)


def rate(found, count):
    """Return tasks per second between the first record and the last; every number must be there."""
    if missing := set(range(count)) - {number for _, number in found}:
        raise BenchError(f"{len(missing)} tasks did not run")
    times = [at for at, _ in found]
    return (count - 1) / ((max(times) - min(times)) / 1e9)


if __name__ == "__main__":
    os.environ.setdefault("C_FORCE_ROOT", "1")
    main()
