"""Whether work goes where there is room: long and short tasks on two workers, and a worker that starts late.

mixed: two workers with four processes each; then 8 tasks of 10 s and 1,000 of 10 ms come, shuffled (the same way each time). A slot (a
process that runs tasks) is free from the end of a task to the start of its next one. The figure is the longest time for which one slot
was free while short tasks were waiting all the time: the promise is that no short task waits while any slot is free. At moments the 8 long
ones may fill all 8 slots; then nothing is free and nobody is to blame.
late: one worker with four processes has a long queue of 50 ms tasks; a second worker starts three seconds later. The figure is the time
from the line in its log that says it is ready to its first task; below 0, its first task was quicker than the line.

Prefetching is each system's default. Each task writes its start and its end into the ledger.
"""

import contextlib
import random
import subprocess
import tempfile
import time
from collections import defaultdict
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
    summary,
    table,
    tree,
    versions,
    wait_until,
)
from _queues import APPS, QUEUES

SYSTEMS = {"umbel": QUEUES[0], "celery": QUEUES[1]}
WORKERS, SLOTS = 2, 4
LONG, SHORT, STEADY = 10.0, 0.01, 0.05  # seconds
LATER = 3.0  # seconds until the second worker starts
LIMIT = 120  # seconds for one case
NODES = ("first", "second")


class Case:
    """One system on an empty Redis, its workers and its ledger."""

    def __init__(self, name, server, stack):
        server.clear()
        self.queue, self.stack = SYSTEMS[name], stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="umbel-bench-")))
        self.ledger = self.folder / "ledger"
        self.env = environment(server.url, ledger=self.ledger, BENCH_SYSTEM=name)

    def worker(self, node):
        """Start a worker; return its process and when its log said that it is ready, in ns."""
        logs = self.folder / node
        logs.mkdir()
        program = str(self.queue.bin / self.queue.worker.split()[0])
        command = [program, "-A", "fairness_app", "worker", "-P", "prefork", "-c", str(SLOTS), "-l", "INFO", "-n", f"{node}@host"]
        process = self.stack.enter_context(running(command, env=self.env, folder=logs))
        wait_until(lambda: b" ready." in (logs / "worker.log").read_bytes(), 60, f"{node}: not ready in 60 s", pause=0.002)
        return process, time.monotonic_ns()

    def send(self, lengths):
        """Send calls from a fresh process; return when the last one was sent, in ns."""
        command = [str(self.queue.python), str(APPS / "fairness_send.py")]
        text = ",".join(str(length) for length in lengths)
        done = subprocess.run(command, env=self.env, cwd=APPS, input=text, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BenchError(done.stderr.strip()[-800:])
        return int(done.stdout)

    def ended(self, count):
        """Wait until all tasks have ended."""
        wait_until(lambda: count_of(self.ledger) >= 2 * count, LIMIT, f"{count_of(self.ledger)} of {2 * count} records in {LIMIT} s")

    def runs(self):
        """(process, number of the call, start, end or None), in ns, by start."""
        begun, found = {}, []
        for stamp, number in records(self.ledger):
            pid, side = number >> 32, number & 0xFFFFFFFF
            if side % 2:
                found.append((pid, side // 2, begun.pop((pid, side // 2)), stamp))
            else:
                begun[pid, side // 2] = stamp
        found += [(pid, number, start, None) for (pid, number), start in begun.items()]
        return sorted(found, key=lambda run: run[2])


def mixed(case, options):
    """Long and short tasks at once."""
    lengths = [LONG] * options.long + [SHORT] * options.count
    random.Random(7).shuffle(lengths)
    for node in NODES:
        case.worker(node)
    time.sleep(0.5)
    sent = case.send(lengths)
    case.ended(len(lengths))
    runs = case.runs()
    short = [run for run in runs if lengths[run[1]] == SHORT]
    last = max(start for _, _, start, _ in short)  # until then short tasks were waiting
    waited = [max(0, start - sent) / 1e6 for _, _, start, _ in short]
    return {
        "free_while_waiting_ms": max(gaps(runs, sent, last), default=0) / 1e6,
        "short_wait_max_ms": max(waited),
        "seconds": (max(end for *_, end in runs) - sent) / 1e9,
        "extra_runs": len(runs) - len(lengths),
    }


def gaps(runs, since, until):
    """How long each slot was free, each time, between two moments, in ns."""
    slots = defaultdict(list)
    for pid, _, start, end in runs:
        slots[pid].append((start, end))
    if len(slots) < WORKERS * SLOTS:
        yield until - since  # a slot that never ran anything was free all the time
    for times in slots.values():
        ends = [since, *(end for _, end in times)]
        starts = [*(start for start, _ in times), until]
        for end, start in zip(ends, starts, strict=True):
            yield min(start, until) - max(end, since)


def late(case, options):
    """A worker that starts when there is much to do."""
    case.worker(NODES[0])
    sent = case.send([STEADY] * options.steady)
    time.sleep(max(0.0, LATER - (time.monotonic_ns() - sent) / 1e9))
    process, ready = case.worker(NODES[1])

    def theirs():
        slots = set(tree(process.pid))
        return [start for pid, _, start, _ in case.runs() if pid in slots]

    wait_until(theirs, 30, "the second worker ran nothing in 30 s", pause=0.05)
    return {"first_task_after_ready_ms": (min(theirs()) - ready) / 1e6}


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=1_000)
    parser.add_argument("--long", type=int, default=8, help="tasks of 10 s")
    parser.add_argument("--steady", type=int, default=1_000, help="tasks of 50 ms in the queue when a worker starts late")
    parser.add_argument("--only", default="", help="umbel, celery, with commas")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(SYSTEMS)
    names = [name for name in SYSTEMS if name in wanted and SYSTEMS[name].installed]
    result = {"benchmark": "fairness", "machine": machine(), "versions": versions([SYSTEMS[name] for name in names])}
    runs = {}
    with redis_server() as server:
        for number, (name, measure) in interleaved([(name, measure) for name in names for measure in (mixed, late)], options.rounds):
            label = f"{name}, {measure.__name__}"
            try:
                with contextlib.ExitStack() as stack:
                    run = measure(Case(name, server, stack), options)
            except BenchError as exc:
                say(f"round {number}: {label}: {exc}")
                continue
            runs.setdefault(name, {}).setdefault(measure.__name__, []).append(run)
            say(f"round {number}: {label}: " + ", ".join(f"{key.replace('_', ' ')} {value:,.1f}" for key, value in run.items()))
    result["cases"] = {
        name: {case: {key: summary(run[key] for run in each) for key in each[0]} for case, each in found.items()}
        for name, found in runs.items()
    }
    rows = [
        (name, case, key.replace("_", " "), f"{value['median']:,.1f}", f"{value['min']:,.1f}", f"{value['max']:,.1f}")
        for name, found in result["cases"].items()
        for case, figures in found.items()
        for key, value in figures.items()
    ]
    table("Work where there is room", ("queue", "case", "figure", "median", "min", "max"), rows)
    finish(result, options)


if __name__ == "__main__":
    main()
