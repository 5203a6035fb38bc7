"""How fast one worker with one process that runs tasks drains queued no-op tasks from Redis: umbel beside other queues.

Each run: an empty database, the queue is filled, then the worker starts. Each task appends its time to a file (peers/ledger.py); the
clock runs from the first record to the last one, so neither start nor end of the worker counts, and nobody's own figures are believed.
Every number must be there; repeats are reported. Rounds are interleaved; the result is the median. The last entry, bare-loop, is no queue
but a floor: one process that claims, decodes and runs umbel's own messages, and does nothing else.
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
    records,
    redis_server,
    running,
    say,
    send,
    summary,
    table,
    tree_cpu,
    versions,
)
from _queues import FLOOR

LIMIT = 120  # seconds for one drain; what did not finish is rated by what it did


def drain(queue, results, count, server):
    """Fill and drain once; return the figures of the run."""
    with emptied(queue, server), tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, results=results, ledger=ledger)
        send(queue, "bulk" if queue.bulk else "loop", count, env=env)
        ledger.write_bytes(b"")
        with running(queue.command(), env=env, folder=folder) as worker:
            used = watch(queue, worker, ledger, count, server)
        return figures(records(ledger), count) | used | {"keys_left": server.client.dbsize()}


def watch(queue, worker, ledger, count, server):
    """Wait for the last task; return CPU time per task of the worker and of the server, from the first task on."""

    def alive_until(met, seconds):
        deadline = time.monotonic() + seconds
        while not met():
            if worker.poll() is not None:
                raise BenchError(f"{queue.name}: the worker ended with {worker.returncode} after {count_of(ledger)} tasks")
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    if not alive_until(lambda: count_of(ledger) > 0, 60):
        raise BenchError(f"{queue.name}: no task started in 60 s")
    begun, ours, theirs = count_of(ledger), tree_cpu(worker.pid), server.cpu()
    alive_until(lambda: count_of(ledger) >= count, LIMIT)
    done = max(1, count_of(ledger) - begun)
    return {
        "worker_cpu_us_per_task": (tree_cpu(worker.pid) - ours) / done * 1e6,
        "redis_cpu_us_per_task": (server.cpu() - theirs) / done * 1e6,
    }


def figures(found, count):
    """The rate from the first task's start to the last one's end."""
    seconds = (max(stamp for stamp, _ in found) - min(stamp for stamp, _ in found)) / 1e9
    numbers = {number for _, number in found}
    return {
        "tasks": count,
        "seconds": seconds,
        "rate": (len(numbers) - 1) / seconds if seconds else 0.0,
        "missing": count - len(numbers),
        "repeated": len(found) - len(numbers),
    }


def main():
    parser = arguments(__doc__.splitlines()[0], count=50_000, queues=True, rounds=3)
    parser.add_argument(
        "--results", choices=("off", "on", "both"), default="both", help="are results stored? (default: both, one after the other)"
    )
    options = parser.parse_args()
    queues = chosen(options.only)
    modes = {"off": [False], "on": [True], "both": [False, True]}[options.results]
    cases = [(queue, results) for queue in queues for results in modes if queue.can_store or not results]
    result = {"benchmark": "drain", "machine": machine(), "versions": versions(queues), "runs": []}
    with redis_server() as server:
        for number, (queue, results) in interleaved(cases, options.rounds):
            label = {"round": number, "queue": queue.name, "results": results}
            try:
                run = drain(queue, results, min(options.count, queue.most), server)
            except BenchError as exc:
                say(f"{queue.name}, results {'on' if results else 'off'}: {exc}")
                result["runs"].append(label | {"error": str(exc)})
                continue
            missing = f", {run['missing']} MISSING" if run["missing"] else ""
            say(f"round {number}: {queue.name}, results {'on' if results else 'off'}: {run['rate']:,.0f}/s{missing}")
            result["runs"].append(label | run)
    result["medians"] = medians(cases, result["runs"])
    result["ratios"] = ratios(result["medians"])
    show(result["medians"], result["ratios"])
    finish(result, options)


def medians(cases, runs):
    """Condense the rounds of each case, and set them beside Celery."""
    found = []
    for queue, results in cases:
        mine = [run for run in runs if (run["queue"], run["results"]) == (queue.name, results) and "rate" in run]
        if mine:
            line = {
                "queue": queue.name,
                "results": results,
                "is_its_default": results == queue.stores,
                "slots": queue.slots,
                "rate": summary(run["rate"] for run in mine),
            }
            for name in ("worker_cpu_us_per_task", "redis_cpu_us_per_task", "keys_left", "missing", "repeated", "tasks"):
                line[name] = summary(run[name] for run in mine)["median"]
            found.append(line)
    for line in found:
        base = next(
            (other["rate"]["median"] for other in found if other["queue"] == "celery" and other["results"] == line["results"]), None
        )
        line["times_celery"] = line["rate"]["median"] / base if base else None
    return found


def ratios(lines):
    """The figures that umbel is held to, from the medians; what was not measured is None."""
    found = {(line["queue"], line["results"]): line for line in lines}

    def ratio(results, rates):
        ours, theirs = found.get(("umbel", results)), max(rates, default=None)
        return ours["rate"]["median"] / theirs if ours and theirs else None

    def rates(results, wanted):
        return [line["rate"]["median"] for (name, stored), line in found.items() if stored == results and wanted(name)]

    value = {}
    for name, results in (("off", False), ("on", True)):
        value[f"over_celery_results_{name}"] = ratio(results, rates(results, lambda queue: queue == "celery"))
        value[f"over_best_other_results_{name}"] = ratio(results, rates(results, lambda queue: queue not in {"umbel", FLOOR.name}))
    value["over_bare_loop"] = ratio(False, rates(False, lambda queue: queue == FLOOR.name))
    for name, results in (("off", False), ("on", True)):
        ours = found.get(("umbel", results))
        value[f"worker_cpu_ms_per_task_results_{name}"] = ours["worker_cpu_us_per_task"] / 1000 if ours else None
    return value


def show(lines, found):
    """Print the table, the fastest first, and the ratios."""
    head = ("queue", "results", "at once", "median/s", "rounds/s", "x celery", "worker us", "redis us", "missing", "repeated")
    rows = [
        (
            line["queue"],
            ("on" if line["results"] else "off") + (" *" if line["is_its_default"] else ""),
            line["slots"],
            f"{line['rate']['median']:,.0f}",
            f"{line['rate']['min']:,.0f}-{line['rate']['max']:,.0f}",
            f"{line['times_celery']:.1f}" if line["times_celery"] else "-",
            f"{line['worker_cpu_us_per_task']:.0f}",
            f"{line['redis_cpu_us_per_task']:.0f}",
            int(line["missing"]),
            int(line["repeated"]),
        )
        for line in sorted(lines, key=lambda line: (line["results"], -line["rate"]["median"]))
    ]
    table("Drain of no-op tasks (*: the queue's own default for results; us: CPU per task)", head, rows)
    said = [f"{name.replace('_', ' ')} {value:.3g}" if value else f"{name.replace('_', ' ')} not measured" for name, value in found.items()]
    say(f"  umbel: {'; '.join(said)}")


if __name__ == "__main__":
    main()
