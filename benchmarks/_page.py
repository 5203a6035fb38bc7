"""Writes the tables of docs/explanation/scaling.md, and the sentences that have figures: each between its two marks, `<!-- name -->` and
`<!-- /name -->`."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "scaling.md"
SAID = {
    "publish": "`delay()`",
    "publish_of_many": "a message in `delay_many()`",
    "claim_call": "a claim",
    "claim": "each message in it",
    "ride_call": "acknowledgements that ride on a claim",
    "ride": "each of them",
    "settle_call": "a call that only acknowledges",
    "settle": "each message in it",
    "settle_result": "each message in it with its result",
    "empty_claim": "a claim that finds nothing",
    "look": "a look of an idle worker: a tenth of a second of waiting for the bell, then for messages without one",
    "renew": "a renewal of the lease",
}


def markdown(head, rows):
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def fill(tables):
    """Put each table into its place."""
    text = PAGE.read_text()
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marks.search(text):
            raise SystemExit(f"{PAGE} has no place for the table {name!r}.")
        text = marks.sub(lambda found, table=table: found[1] + table + "\n" + found[2], text)
    PAGE.write_text(text)


def work(seconds):
    """The length of a task."""
    return f"{seconds * 1000:g} ms" if seconds else "no-op"


def costs(measured):
    """What each call costs."""
    rows = [(words, f"{measured['costs_us'][name]:.1f}") for name, words in SAID.items()]
    return markdown(("what is asked", "µs of Redis's CPU"), rows)


def alone(us):
    """What a task that travels alone costs, where others wait: its claim, on which the acknowledgement of the one before rides."""
    return us["claim_call"] + us["claim"] + us["ride_call"] + us["ride"]


def limits(measured):
    """What one Redis carries, by these costs alone."""
    us = measured["costs_us"]
    batch = 500
    short = us["claim"] + us["ride"] + (us["claim_call"] + us["ride_call"]) / batch
    result = us["settle_result"] - us["settle"]
    own = us["claim_call"] + us["claim"] + us["settle_call"] + us["settle"]
    cases = {
        "short tasks, claimed by hundreds, sent by `delay_many()`": short + us["publish_of_many"],
        "short tasks, sent by `delay()`": short + us["publish"],
        "short tasks, sent by `delay()`, with stored results": short + us["publish"] + result,
        "tasks above 25 ms, claim with riding acknowledgement": alone(us) + us["publish"],
        "tasks above 25 ms, with stored results": alone(us) + us["publish"] + result,
        "tasks above 25 ms, acknowledged by a call of their own": own + us["publish"],
    }
    rows = [(words, f"{each:.0f}", f"{1e6 / each // 1000 * 1000:,.0f}") for words, each in cases.items()]
    return markdown(("", "µs of Redis for each task", "tasks per second of one Redis"), rows)


def idle(measured, simulated):
    """What idle workers cost."""
    herd = {line["workers"]: line for line in measured["herd"]}

    def asked(workers):
        line = herd.get(workers)
        return (f"{workers * line['round_trips_per_worker']:,.0f}", f"{line['redis_cpu_share'] * 100:.1f} %") if line else ("", "")

    rows = [
        (f"{line['workers']:,}", f"{line['calls_per_second']:,.0f}", f"{line['redis_share'] * 100:.1f} %", *asked(line["workers"]))
        for line in simulated["idle"]
    ]
    head = ("idle workers, one queue", "simulated: calls per second", "of Redis", "measured: calls per second", "of Redis")
    return markdown(head, rows)


def drain(measured):
    """Workers and queues."""
    rows = [
        (
            f"{line['workers']} x {line['queues']}",
            work(line["work_s"]),
            f"{line['rate']['median']:,.0f} ({line['rate']['min']:,.0f}-{line['rate']['max']:,.0f})",
            f"{line['redis_cpu_share'] * 100:.0f} %",
            f"{line['redis_cpu_us_per_task']:.1f}",
            f"{line['worker_cpu_us_per_task']:.0f}",
            f"{line['busy_share'] * 100:.0f} %",
        )
        for line in measured["medians"]
    ]
    head = ("workers x queues", "task", "tasks per second (rounds)", "Redis, of its CPU", "redis µs", "worker µs", "CPUs busy")
    return markdown(head, rows)


def simulation(simulated, shown=(1, 10, 50, 100, 200, 500, 1000)):
    """Workers and lengths of tasks."""

    def cell(row):
        waits = f"{row['claim_wait_p50_ms']:,.1f}, {row['claim_wait_p99_ms']:,.1f}" + (" !" if row["late"] else "")
        return f"{row['rate']:,.0f} / {row['redis_share'] * 100:.0f} % / {waits}"

    lines = simulated["rows"]
    by_number = {name: {row["workers"]: row for row in rows} for name, rows in lines.items()}
    rows = [(f"{number:,}", *(cell(by_number[name][number]) for name in lines)) for number in shown]
    return markdown(("workers", *lines), rows)


def check(simulated):
    """The model beside measurements."""
    rows = [
        (
            line["workers"],
            work(line["work_s"]),
            f"{line['measured']:,.0f}",
            f"{line['model']:,.0f}",
            f"{line['error'] * 100:+.0f} %",
        )
        for line in simulated["check"]
    ]
    return markdown(("workers", "task", "measured, best round", "model", "error"), rows)


# --- sentences


def far(simulated, most=1000):
    """How much of Redis so many workers use whose tasks take a second."""
    row = next(row for row in simulated["rows"]["1 s"] if row["workers"] == most)
    return f"By the simulation below, {most:,} workers with tasks of a second use {row['redis_share'] * 100:.0f} % of one Redis."


def long(measured, seconds=0.1):
    """How many processes fill one Redis with tasks that take so long."""
    us = alone(measured["costs_us"]) + measured["costs_us"]["publish"]
    times = f"{round(seconds * 1e6 / us, -2):,.0f}"
    words = f"A task of {seconds * 1000:g} ms keeps a process busy {times} times as long as Redis"
    return f"{words}, so it takes as many processes to fill one Redis."


def trips(measured):
    """What queues cost an idle worker."""
    by = {(line["workers"], line["queues"]): line["round_trips_per_worker"] for line in measured["idle"]}
    return f"Measured: an idle worker with one queue makes {by[1, 1]:.0f} round trips per second, one with four queues {by[1, 4]:.0f}."


def made(measured):
    """On what the rates were measured."""
    machine, redis = measured["machine"], measured["versions"]["redis"]
    day = f", {measured['date'][:10]}" if "date" in measured else ""
    return f"One virtual machine with {machine['cpus']} CPUs runs all: Redis {redis}, and the workers on CPython {machine['python']}{day}."


def grows(measured):
    """How the rate of tasks that take time grows with the workers."""
    lines = {line["workers"]: line for line in measured["medians"] if line["queues"] == 1 and line["work_s"]}
    least, most = min(lines), max(lines)
    times = lines[most]["rate"]["median"] / lines[least]["rate"]["median"]
    many, few = (f"{number} worker{'s' * (number > 1)}" for number in (most, least))
    return f"Of tasks of {work(lines[most]['work_s'])}, {many} ran {times:.1f} times as many per second as {few}."


def write(measured, simulated):
    """Write all of it."""
    fill(
        {
            "far": far(simulated),
            "long": long(measured),
            "trips": trips(measured),
            "made": made(measured),
            "grows": grows(measured),
            "costs": costs(measured),
            "limits": limits(measured),
            "idle": idle(measured, simulated),
            "drain": drain(measured),
            "simulation": simulation(simulated),
            "check": check(simulated),
        }
    )
