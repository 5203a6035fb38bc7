"""What one Redis carries, up to a thousand workers: a simulation of discrete events, with costs that were measured.

The costs come from `benchmarks/scaling.py` (`--measured FILE`; else its JSON in `benchmarks/results`). The model is in `_model.py`. It
assumes:

* Redis does one thing at a time, in the order in which calls arrive. A call costs so much and so much more for each message in it, and for
  each settlement that rides on it. One that finds Redis asleep (nothing to do for 0.1 ms) costs the waking up, too.
  Who waits in it for a bell is answered after the next call, or when it ticks, ten times a second.
* Messages wait without end, and producers replace each that is claimed by a call of its own within 50 ms. So each task costs its publish.
  Results are off. Tasks are counted (`task_counters`): all that one call settles under one name.
* Each worker has one process that runs tasks (`-c 1`) and one queue, and its tasks all take the same time. A claim asks for what
  `Inflight.room` would. As messages always wait, what an outcome makes room for is claimed at once, and its settlement rides on that claim:
  a task that travels alone is one call. Short tasks are claimed when a quarter of the horizon is free (`WORTH`); what no claim has taken
  along after `LINGER` is settled by a call of its own. Leases are renewed and queues looked after.
* Workers have as many CPUs as they need, each 60 us of network away. Nothing is lost, late or repeated: where a call would wait
  longer than its deadline (1.2 s), a row is marked, as real workers would give it up and ask again.

Where two CPUs are all there is, as in the check against measured rates, workers and Redis share them (`Cores`), each in its turn.
"""

import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import _page
from _harness import arguments, finish, machine, say, table
from _model import Costs, simulate
from _plot import write

RESULTS = Path(__file__).resolve().parent / "results"
WORKERS = (1, 2, 4, 10, 20, 50, 100, 200, 500, 1000)
TASKS = {"no-op": 0.0, "1 ms": 0.001, "10 ms": 0.01, "100 ms": 0.1, "1 s": 1.0}
NETWORK = 60e-6  # seconds of a round trip in which nobody works
FULL = 0.9  # share of Redis from which on it is the limit
DEADLINE_MS = 1200  # of a reply: the driver's timeout of 2 s, less what is kept for connecting


def costs_of(measured):
    """The model's costs, in seconds; those of a worker from the best round with one worker."""
    alone = [run for run in measured["runs"] if "rate" in run and (run["workers"], run["queues"]) == (1, 1)]
    quick, slow = (max((run for run in alone if bool(run["work_s"]) is works), key=itemgetter("rate")) for works in (False, True))
    parent = quick["parent_cpu_us_per_task"]
    worker = {"parent": parent, "child": quick["worker_cpu_us_per_task"] - parent, "parent_wake_up": 0.0}
    given = {name: value for name, value in measured["costs_us"].items() if name in Costs.__dataclass_fields__}
    if missing := Costs.__dataclass_fields__.keys() - given.keys() - worker.keys() - {"network"}:
        raise SystemExit(f"What was measured has no {', '.join(sorted(missing))}: it is too old. Run scaling.py again.")
    costs = Costs(**{name: value / 1e6 for name, value in {**given, **worker}.items()}, network=NETWORK)
    # What a parent needs more for a task that takes time is that it sleeps between them: so often is it woken, as the model has it.
    woken = simulate(costs, 1, 1 / slow["rate"] - costs.child, cores=measured["machine"]["cpus"], feed=False)["parent_wakes_per_task"]
    return replace(costs, parent_wake_up=max(0.0, slow["parent_cpu_us_per_task"] - parent) / 1e6 / woken)


def check(measured, costs):
    """Set the model beside the best rounds with one queue, in which others took the least of the machine: how wrong is it?"""
    found, cpus = [], measured["machine"]["cpus"]
    lines = [line for line in measured["medians"] if line["queues"] == 1]
    alone = {line["work_s"]: line["rate"]["max"] for line in lines if line["workers"] == 1}
    for line in lines:
        # How long a sleep of 1 ms really is depends on the machine: the row with one worker says so, and is no proof.
        duration = 1 / alone[line["work_s"]] - costs.child if line["work_s"] else TASKS["no-op"]
        said = simulate(costs, line["workers"], duration, cores=cpus, feed=False)
        real = line["rate"]["max"]
        found.append(
            {
                "workers": line["workers"],
                "work_s": line["work_s"],
                "measured": real,
                "model": said["rate"],
                "error": said["rate"] / real - 1,
                "measured_redis_us": line["redis_cpu_us_per_task"],
                "model_redis_us": said["redis_us_per_task"],
            }
        )
    return found


def marked(row):
    """Say whether calls would come too late."""
    return row | {"late": row["claim_wait_p99_ms"] > DEADLINE_MS}


def first_full(rows):
    """With how many workers Redis becomes the limit, and what it carries then; None: not with so many."""
    full = [row for row in rows if row["redis_share"] >= FULL]
    return {"workers": full[0]["workers"], "rate": full[0]["rate"]} if full else None


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--measured", type=Path, help="the JSON of scaling.py (default: benchmarks/results/scaling.json)")
    options = parser.parse_args()
    kept = options.measured or RESULTS / "scaling.json"
    if not kept.exists():
        raise SystemExit(f"{kept} is not there. Measure first: benchmarks/scaling.py --json {kept}")
    measured = json.loads(kept.read_text())
    costs = costs_of(measured)
    rows = {name: [marked(simulate(costs, workers, seconds)) for workers in WORKERS] for name, seconds in TASKS.items()}
    idle = [simulate(costs, workers, 1.0, backlog=False, feed=False) for workers in (1, 10, 100, 1000)]
    result = {
        "benchmark": "simulate",
        "machine": machine(),
        "costs_us": {name: getattr(costs, name) * 1e6 for name in Costs.__dataclass_fields__},
        "rows": rows,
        "limits": {name: first_full(lines) for name, lines in rows.items()},
        "idle": idle,
        "check": check(measured, costs),
    }
    show(result)
    if options.save:
        plot(rows)
        _page.write(measured, result)
    finish(result, options)


def show(result):
    """Print the tables."""
    lines = [
        (
            f"{name}, {row['workers']}",
            f"{row['rate']:,.0f}",
            f"{row['redis_share'] * 100:.0f}",
            f"{row['redis_us_per_task']:.0f}",
            f"{row['claim_wait_p50_ms']:.1f}",
            f"{row['claim_wait_p99_ms']:.1f}" + (" !" if row["late"] else ""),
        )
        for name, rows in result["rows"].items()
        for row in rows
    ]
    head = ("task, workers", "tasks/s", "redis %", "redis us", "claim p50 ms", "p99 ms")
    table("Simulated: one Redis (!: longer than a call may take)", head, lines)
    lines = [(row["workers"], f"{row['calls_per_second']:,.0f}", f"{row['redis_share'] * 100:.1f}") for row in result["idle"]]
    table("Simulated: idle workers", ("workers", "calls/s", "redis %"), lines)
    lines = [
        (
            f"{row['workers']}, {row['work_s'] * 1000:g} ms",
            f"{row['measured']:,.0f}",
            f"{row['model']:,.0f}",
            f"{row['error'] * 100:+.0f}",
            f"{row['measured_redis_us']:.1f}",
            f"{row['model_redis_us']:.1f}",
        )
        for row in result["check"]
    ]
    head = ("workers, work", "measured/s", "model/s", "error %", "measured redis us", "model redis us")
    table("The model beside what was measured", head, lines)


def plot(rows):
    """Write throughput and utilisation over the number of workers."""

    def lines(value):
        return [
            (f"tasks of {name}" if TASKS[name] else f"{name} tasks", [(row["workers"], value(row)) for row in found])
            for name, found in rows.items()
        ]

    panels = [
        ("tasks per second", lines(lambda row: row["rate"])),
        ("Redis: % of its one CPU", lines(lambda row: row["redis_share"] * 100)),
    ]
    write(RESULTS / "scaling.svg", panels, "workers with one process each, on one Redis")
    say(f"wrote {RESULTS / 'scaling.svg'}")


if __name__ == "__main__":
    main()
