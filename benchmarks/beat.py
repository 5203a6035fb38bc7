"""A scheduler with 100,000 entries in Redis: how soon an edit counts, how late runs are, how many it sends, and what it costs while idle.

`umbel beat` runs as a program; this one puts entries into its store, reads the messages and compares the moment in each (`umbel_slot`) with
the clock. Beside it Celery's beat with entries of one second, as many as `--celery` says: how many of the due ones it sends.
"""

import os
import tempfile
import time

import msgspec
from _harness import (
    arguments,
    finish,
    machine,
    percentile,
    redis_server,
    running,
    say,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import QUEUES

from umbel import Umbel
from umbel.beat.planning import slot_of
from umbel.beat.stores import open_stores
from umbel.schedule_store import Row
from umbel.wire.message import decode

UMBEL, CELERY = QUEUES[0], QUEUES[1]


class Reader:
    """Takes the messages out of the queue, and notes how late each was."""

    def __init__(self, app):
        self.broker, self.seq = app.broker, 0
        self.broker.join("reader", ["celery"], lease=3600)

    def read(self, until):
        """Return (entry, slot, seconds late) of each message until the clock says *until*."""
        found = []
        while time.time() < until:
            self.broker.wait("reader", ["celery"], max(0.0, min(0.05, until - time.time())))
            self.seq += 1
            messages = self.broker.fetch("celery", 1000, owner="reader", seq=self.seq)
            now = time.time()
            for message in messages:
                run = decode(message.raw).headers["umbel_slot"]
                found.append((run.rpartition("@")[0], slot_of(run), now - slot_of(run)))
        return found


def row(name, **schedule):
    """One entry."""
    return Row(name, msgspec.json.encode({"task": "bench.nothing", "schedule": schedule}))


def measure(url, options):
    """One round with umbel."""
    app = Umbel("bench", broker=url)
    leases, store = open_stores(app)
    leases.close()
    idle = (
        row(f"idle{n}", kind="crontab", minute=str(n % 60), hour="3", day_of_month="29", month_of_year="2") for n in range(options.count)
    )
    store.put(idle)
    environment = {**os.environ, "BENCH_URL": url}
    reader = Reader(app)
    line = {}
    with (
        tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder,
        running([str(UMBEL.bin / "umbel"), "-A", "beat_app", "beat"], env=environment, folder=folder) as beat,
    ):
        store.put([row("probe", kind="every", run_every=0.25)])
        began = time.perf_counter()
        wait_until(lambda: reader.read(time.time() + 0.1), 60, "the scheduler has sent nothing")
        line["seconds_to_first"] = time.perf_counter() - began
        store.remove(["probe"])
        time.sleep(3)
        before = tree_cpu(beat.pid)
        time.sleep(options.seconds)
        line["idle_cpu_percent"] = (tree_cpu(beat.pid) - before) / options.seconds * 100
        line["edit_ms"] = edits(store, reader, options.edits)
        line["same_second_ms"] = together(store, reader, 1000)
        line |= sustained(store, reader, options)
    store.close()
    app.broker.close()
    return line


def edits(store, reader, count):
    """Put an entry that is due at once, again and again, a tenth of a second apart; return how long each took to be sent."""
    asked = {}
    found = []
    for n in range(count):
        asked[f"edit{n}"] = time.time()
        store.put([row(f"edit{n}", kind="every", run_every=0.01)])
        found += reader.read(asked[f"edit{n}"] + 0.1)
        store.remove([f"edit{n - 30}"])
    found += reader.read(time.time() + 3)
    store.remove([f"edit{n}" for n in range(count)])
    reader.read(time.time() + 2)
    first = {}
    for name, slot, late in found:
        first.setdefault(name, slot + late)
    return [(first[name] - at) * 1000 for name, at in asked.items()]


def together(store, reader, count):
    """Let *count* entries be due in one second; return how late the last was."""
    at = int(time.time()) + 5
    when = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))
    store.put([row(f"same{n}", kind="clocked", at=when) for n in range(count)])
    found = [late for name, _, late in reader.read(at + 4) if name.startswith("same")]
    assert len(found) == count, f"{len(found)} of {count} were sent"
    return max(found) * 1000


def sustained(store, reader, options):
    """Let many be due each second."""
    store.put([row(f"each{n}", kind="every", run_every=1) for n in range(options.rate)])
    reader.read(time.time() + 5)
    start = time.time()
    found = [(slot, late) for name, slot, late in reader.read(start + options.seconds) if name.startswith("each")]
    store.remove([f"each{n}" for n in range(options.rate)])
    reader.read(time.time() + 3)
    return {"sent_per_second": len(found) / options.seconds, "late_ms": [late * 1000 for _, late in found]}


def celery(url, options):
    """Celery's beat: how many it sends of those that are due."""
    environment = {**os.environ, "BENCH_URL": url, "BENCH_ENTRIES": str(options.celery)}
    app = Umbel("bench", broker=url)
    with (
        tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder,
        running([str(CELERY.bin / "celery"), "-A", "beat_app", "beat", "-s", f"{folder}/beat"], env=environment, folder=folder),
    ):
        waiting = lambda: app.broker.depth(["celery"])["celery"].ready  # noqa: E731 - short
        wait_until(waiting, 60, "Celery's beat has sent nothing")
        before = waiting()
        time.sleep(options.seconds)
        sent = waiting() - before
    app.broker.close()
    return {"sent_per_second": sent / options.seconds}


def main():
    """Run the rounds."""
    parser = arguments(__doc__.splitlines()[0], rounds=1, count=100_000)
    parser.add_argument("--edits", type=int, default=100, help="edits, ten in a second")
    parser.add_argument("--rate", type=int, default=5000, help="entries of one second")
    parser.add_argument("--celery", type=int, default=5000, help="entries of one second for Celery's beat")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    options = parser.parse_args()
    result = {
        "benchmark": "beat",
        "machine": machine(),
        "versions": versions([UMBEL, *([CELERY] if CELERY.installed else [])]),
        "cases": {},
    }
    ours, theirs = [], []
    with redis_server() as server:
        for number in range(options.rounds):
            server.clear()
            ours.append(measure(server.url, options))
            say(f"round {number + 1}: umbel")
            if CELERY.installed:
                server.clear()
                theirs.append(celery(server.url, options))
                say(f"round {number + 1}: celery")
    result["cases"] = {"umbel/redis": condensed(ours), **({"celery/redis": condensed(theirs)} if theirs else {})}
    show(result["cases"], options)
    finish(result, options)


def condensed(runs):
    """Figures over all rounds."""
    line = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        if isinstance(values[0], list):
            flat = [value for some in values for value in some]
            line[name] = {"p50": percentile(flat, 0.5), "p99": percentile(flat, 0.99), "max": max(flat), "of": len(flat)}
        else:
            line[name] = summary(values)
    return line


def show(cases, options):
    """Print the table."""
    ours = cases["umbel/redis"]
    rows = [
        ["seconds until it leads and has sent", f"{ours['seconds_to_first']['median']:.1f}"],
        ["idle CPU %", f"{ours['idle_cpu_percent']['median']:.1f}"],
        ["an edit counts after, ms: p50, p99, max", " ".join(f"{ours['edit_ms'][name]:.0f}" for name in ("p50", "p99", "max"))],
        ["1,000 due in one second: the last is late by, ms", f"{ours['same_second_ms']['median']:.0f}"],
        [f"{options.rate} due each second: sent per second", f"{ours['sent_per_second']['median']:.0f}"],
        ["  late by, ms: p50, p99, max", " ".join(f"{ours['late_ms'][name]:.0f}" for name in ("p50", "p99", "max"))],
    ]
    if "celery/redis" in cases:
        rows.append(
            [
                f"Celery's beat, {options.celery} due each second: sent per second",
                f"{cases['celery/redis']['sent_per_second']['median']:.0f}",
            ]
        )
    table(f"umbel beat with {options.count:,} entries in Redis", ["", ""], rows)


if __name__ == "__main__":
    main()
