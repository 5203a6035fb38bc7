"""A million delayed messages in the broker: what they cost it and the workers, and how late a stream of due ones starts beside them.

Workers run first and are warm. Then come `--count` calls with etas from one hour to thirty days; then, for `--seconds`, a stream of
`--rate` calls per second, each due in two seconds; then a burst, all due at one moment. Lateness is from the due time to the record that
the task writes, by one clock. `--broker sqlite` measures an SQLite file instead of a private Redis.
"""

import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    count_of,
    environment,
    finish,
    machine,
    percentile,
    records,
    redis_server,
    running,
    table,
    tree_cpu,
    tree_memory,
    versions,
    wait_until,
)
from _queues import APPS, QUEUES

UMBEL = QUEUES[0]
HOUR, MONTH = 3600, 30 * 86400  # seconds
LEAD = 2.0  # seconds from the call to the due time, in the stream
WARMUP, BURST = 10_000, 5000
CHUNK = 500
LATER = 10**9  # calls from this number on must not start
TICK = 0.02  # seconds: the stream is sent in steps


class Calls:
    """Calls of one app from this process, and when each is due."""

    def __init__(self, url):
        os.environ["BENCH_URL"] = url
        sys.path.insert(0, str(APPS))
        from umbel_app import app, quiet

        self.app, self.task, self.due = app, quiet, {}
        self.number = 0

    def send(self, count, countdown):
        """Send calls that are due at one moment."""
        numbers = range(self.number, self.number + count)
        self.number += count
        due = time.monotonic_ns() + int(countdown * 1e9)
        self.task.delay_many([((number,), {}) for number in numbers], **({"countdown": countdown} if countdown else {}))
        self.due.update(dict.fromkeys(numbers, due))

    def send_later(self, count, tell):
        """Send calls of the next thirty days."""
        chance, sent = random.Random(1), 0
        while sent < count:
            step = min(CHUNK, count - sent)
            calls = [((LATER + number,), {}) for number in range(sent, sent + step)]
            self.task.delay_many(calls, countdown=chance.uniform(HOUR, MONTH))
            sent += step
            tell(sent)

    def stream(self, seconds, rate, tell):
        """Send *rate* calls per second, each due soon; return how long it took."""
        begun, sent = time.monotonic(), 0
        while (gone := time.monotonic() - begun) < seconds:
            if due := int(min(gone + TICK, seconds) * rate) - sent:
                self.send(due, LEAD)
                sent += due
                tell(sent)
            time.sleep(max(0.0, TICK - (time.monotonic() - begun - gone)))
        return time.monotonic() - begun

    def depth(self):
        """What the queue holds."""
        return self.app.broker.depth(["celery"])["celery"]


@contextlib.contextmanager
def bar(title, total):
    """Show how far it is and how long it still takes, on a terminal."""
    begun = time.monotonic()

    def tell(done):
        left = (time.monotonic() - begun) / max(done, 1) * (total - done)
        filled = "#" * (30 * done // total)
        print(f"\r{title:<8} [{filled:<30}] {done:,} of {total:,}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)

    yield tell if sys.stderr.isatty() else lambda _: None
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def store(kind, folder):
    """Give the URL of an empty store, and what says how large it is, in bytes."""
    if kind == "sqlite":
        path = Path(folder) / "umbel.sqlite3"
        yield f"sqlite:///{path}", lambda: sum(part.stat().st_size for part in path.parent.glob("umbel.sqlite3*"))
        return
    with redis_server() as server:
        yield server.url, lambda: server.client.info("memory")["used_memory"]


def memory(workers):
    """PSS of all worker trees in MB, when it has come to rest."""
    last = 0.0
    for _ in range(40):
        now = sum(tree_memory(worker.pid)[0] for worker in workers)
        if abs(now - last) < 0.1:
            break
        last = now
        time.sleep(0.25)
    return now


def lateness(found, due):
    """How late calls started, in ms."""
    late = [(stamp - due[number]) / 1e6 for stamp, number in found if number in due]
    return {"count": len(late), "p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "max": max(late), "min": min(late)}


def promote_ms(calls):
    """How long one promotion takes when nothing is due, in ms."""
    took = []
    for _ in range(200):
        begun = time.perf_counter()
        calls.app.broker.promote("celery")
        took.append((time.perf_counter() - begun) * 1e3)
    return percentile(took, 0.5)


def one_round(options, folder):
    """Measure one store."""
    ledger = Path(folder) / "ledger"
    with contextlib.ExitStack() as stack:
        url, size = stack.enter_context(store(options.broker, folder))
        calls, env = Calls(url), environment(url, ledger=ledger)
        workers = []
        for number in range(options.workers):
            logs = Path(folder) / str(number)
            logs.mkdir()
            workers.append(stack.enter_context(running([*UMBEL.command(), "-n", f"w{number}@%h"], env=env, folder=logs)))
        calls.send(WARMUP, 0)
        wait_until(lambda: count_of(ledger) == WARMUP, 60, "the workers did not warm up in 60 s")
        calls.send(CHUNK, 0.5)
        wait_until(lambda: count_of(ledger) == WARMUP + CHUNK, 60, "the first delayed calls did not start in 60 s")
        calls.due.clear()
        before, held = memory(workers), size()
        with bar("delayed", options.count) as tell:
            begun = time.monotonic()
            calls.send_later(options.count, tell)
            sending = time.monotonic() - begun
        result = {
            "delayed": calls.depth().delayed,
            "published_per_s": options.count / sending,
            "broker_bytes_per_message": (size() - held) / options.count,
            "promote_nothing_ms": promote_ms(calls),
            "pss_mb_before": before,
            "pss_mb_with_delayed": memory(workers),
        }
        used, first = sum(tree_cpu(worker.pid) for worker in workers), calls.number
        with bar("stream", options.seconds * options.rate) as tell:
            took = calls.stream(options.seconds, options.rate, tell)
        wait_until(lambda: count_of(ledger) >= calls.number, 60, "the stream was not done 60 s after its end")
        result |= {
            "stream_per_s": (calls.number - first) / took,
            "stream_late_ms": lateness(records(ledger), calls.due),
            "worker_cpu_us_per_task": (sum(tree_cpu(worker.pid) for worker in workers) - used) / (calls.number - first) * 1e6,
        }
        calls.due.clear()
        due = time.monotonic() + LEAD + BURST / 2000
        while calls.number % CHUNK or len(calls.due) < BURST:
            calls.send(CHUNK - calls.number % CHUNK, due - time.monotonic())
        wait_until(lambda: count_of(ledger) >= calls.number, 60, "the burst was not done in 60 s")
        time.sleep(0.5)  # a repeat would show
        found = records(ledger)
        numbers = [number for _, number in found]
        result |= {
            "burst_late_ms": lateness(found, calls.due),
            "pss_mb_after": memory(workers),
            "missing": calls.number - len(set(numbers)),
            "repeated": len(numbers) - len(set(numbers)),
            "too_early": sum(number >= LATER for number in numbers),
            "left_delayed": calls.depth().delayed,
        }
        result["pss_mb_change_per_worker"] = (result["pss_mb_after"] - result["pss_mb_before"]) / options.workers
        begun = time.monotonic()
        result["purged"] = calls.app.broker.purge("celery")
        result["purge_s"] = time.monotonic() - begun
        calls.app.close()
    return result


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=1, count=1_000_000)
    parser.add_argument("--seconds", type=int, default=60, help="length of the stream")
    parser.add_argument("--rate", type=int, default=1000, help="calls that become due per second in the stream")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--broker", choices=("redis", "sqlite"), default="redis")
    options = parser.parse_args()
    if options.rounds != 1:
        parser.error("one round takes minutes: run it again instead of --rounds")
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        try:
            found = one_round(options, folder)
        except BenchError as exc:
            raise SystemExit(str(exc)) from None
    name = "delays" if options.broker == "redis" else f"delays_{options.broker}"
    result = {"benchmark": name, "broker": options.broker, "machine": machine(), "versions": versions([UMBEL]), "case": found}
    rows = [[key, f"{value:,.1f}" if isinstance(value, float) else value] for key, value in found.items() if not isinstance(value, dict)]
    rows += [
        [f"{key} {part}", f"{value:,.1f}"]
        for key, values in found.items() if isinstance(values, dict) for part, value in values.items()
    ]  # fmt: skip
    table(f"{options.count:,} delayed messages on {options.broker}", ["", "value"], rows)
    finish(result, options)


if __name__ == "__main__":
    main()
