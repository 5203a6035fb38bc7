"""Whether a worker's memory grows with the tasks it has run: umbel over a million no-op tasks, Celery over 30,000, one child, results off.

The memory is the proportional set size (PSS) of the whole worker tree: after one task, and whenever another `--step` tasks are done and
nothing is queued, when it has come to rest. "flat" is the last of these less the one after the first `--mark` tasks: what it still
grew when it was warm. Calls are sent in portions while the worker drains, so that Redis does not hold all of them.
"""

import tempfile
import time
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    chosen,
    count_of,
    emptied,
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
    tree_memory,
    versions,
    wait_until,
)
from _queues import QUEUES

UMBEL = QUEUES[0]
PORTION = 20_000  # calls that are sent at once
WAITING = 40_000  # that wait in Redis at most
STALLED = 60  # seconds for one portion


def at_rest(pid):
    """PSS of a process tree in MB, when it has come to rest."""
    last = 0.0
    for _ in range(20):
        now, _ = tree_memory(pid)
        if abs(now - last) < 0.05:
            break
        last = now
        time.sleep(0.25)
    return now


def portion(queue, count, ledger, sent, env):
    """Send some more calls when few are waiting; return how many were sent in all."""
    wait_until(
        lambda: sent - count_of(ledger) <= WAITING - count, STALLED, f"{queue.name}: {sent - count_of(ledger)} tasks wait for {STALLED} s"
    )
    send(queue, "bulk" if queue.bulk else "loop", count, env=env)
    return sent + count


def one_run(queue, server, count, options):
    """Run a worker over all tasks; return its curve."""
    step, mark = min(options.step, count // 3), min(options.mark, count // 3)
    with emptied(queue, server), tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, ledger=ledger)
        with running(queue.command(), env=env, folder=folder) as worker:
            sent = portion(queue, 1, ledger, 0, env)
            wait_until(lambda: count_of(ledger) >= 1, 60, f"{queue.name}: no task started in 60 s")
            time.sleep(1)  # what it does after a task is over
            start, curve = at_rest(worker.pid), []
            stops = sorted({mark, *range(step, count, step), count})
            for stop in stops:
                while sent < stop:
                    sent = portion(queue, min(PORTION, stop - sent), ledger, sent, env)
                wait_until(lambda stop=stop: count_of(ledger) >= stop, STALLED, f"{queue.name}: {stop - count_of(ledger)} tasks are left")
                curve.append((stop, at_rest(worker.pid)))
                say(f"{queue.name}: after {stop:,} tasks {curve[-1][1]:.1f} MB")
            time.sleep(0.2)  # a repeat would show
            extra = count_of(ledger) - sent
    marked = dict(curve)[mark]
    return {
        "tasks": count,
        "mark": mark,
        "start_mb": start,
        "mark_mb": marked,
        "end_mb": curve[-1][1],
        "flat_mb": curve[-1][1] - marked,
        "curve": [{"tasks": done, "pss_mb": size} for done, size in curve],
        "extra_runs": extra,
    }


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=1, count=1_000_000, queues=True)
    parser.add_argument("--others", type=int, default=30_000, help="tasks of every queue but umbel")
    parser.add_argument("--step", type=int, default=100_000, help="tasks between two looks; at most a third of all")
    parser.add_argument("--mark", type=int, default=100_000, help="tasks after which it is warm; at most a third of all")
    parser.set_defaults(only="umbel,celery")
    options = parser.parse_args()
    queues = chosen(options.only)
    result = {"benchmark": "memory", "machine": machine(), "versions": versions(queues), "runs": []}
    with redis_server() as server:
        for number, queue in interleaved(queues, options.rounds):
            try:
                run = one_run(queue, server, options.count if queue == UMBEL else options.others, options)
            except BenchError as exc:
                say(f"round {number}: {exc}")
                continue
            result["runs"].append({"round": number, "queue": queue.name} | run)
    result["cases"] = condensed(queues, result["runs"])
    show(result["cases"])
    finish(result, options)


def condensed(queues, runs):
    """The medians of each queue."""
    found = []
    for queue in queues:
        if mine := [run for run in runs if run["queue"] == queue.name]:
            line = {"queue": queue.name, "tasks": mine[0]["tasks"], "mark": mine[0]["mark"]}
            found.append(line | {name: summary(run[name] for run in mine) for name in ("start_mb", "mark_mb", "end_mb", "flat_mb")})
    return found


def show(lines):
    """Print the table."""
    rows = [
        (
            line["queue"],
            f"{line['start_mb']['median']:.1f}",
            f"{line['mark_mb']['median']:.1f}",
            f"{line['mark']:,}",
            f"{line['end_mb']['median']:.1f}",
            f"{line['tasks']:,}",
            f"{line['flat_mb']['median']:+.1f}",
        )
        for line in lines
    ]
    table("PSS of a worker with one child", ("MB", "after 1 task", "warm", "after", "at the end", "after", "flat"), rows)


if __name__ == "__main__":
    main()
