"""Writes the tables of docs/explanation/scaling.md, each between its two marks: `<!-- name -->` and `<!-- /name -->`."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "scaling.md"
SAID = {
    "publish": "`delay()`",
    "publish_of_many": "a message in `delay_many()`",
    "claim_call": "a claim",
    "claim": "each message in it",
    "settle_call": "a call that acknowledges",
    "settle": "each message in it",
    "settle_result": "each message in it with its result",
    "empty_claim": "a claim that finds nothing",
    "blpop": "a tenth of a second of waiting for the bell",
    "any": "a look for messages without a bell",
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


def limits(measured):
    """What one Redis carries, by these costs alone."""
    us = measured["costs_us"]
    batch = 500
    short = us["claim"] + us["settle"] + (us["claim_call"] + us["settle_call"]) / batch
    long = us["claim_call"] + us["claim"] + us["settle_call"] + us["settle"]
    result = us["settle_result"] - us["settle"]
    cases = {
        "short tasks, claimed by hundreds, sent by `delay_many()`": short + us["publish_of_many"],
        "short tasks, sent by `delay()`": short + us["publish"],
        "short tasks, sent by `delay()`, with stored results": short + us["publish"] + result,
        "tasks above 25 ms, each claimed and acknowledged alone": long + us["publish"],
        "tasks above 25 ms, with stored results": long + us["publish"] + result,
    }
    rows = [(words, f"{each:.0f}", f"{1e6 / each // 1000 * 1000:,.0f}") for words, each in cases.items()]
    return markdown(("", "µs of Redis for each task", "tasks per second of one Redis"), rows)


def idle(measured, simulated):
    """What idle workers cost."""
    herd = {line["workers"]: line for line in measured["herd"]}
    rows = [
        (
            f"{line['workers']:,}",
            f"{line['calls_per_second']:,.0f}",
            f"{line['redis_share'] * 100:.1f} %",
            f"{herd[line['workers']]['redis_cpu_share'] * 100:.1f} %" if line["workers"] in herd else "",
        )
        for line in simulated["idle"]
    ]
    return markdown(("idle workers, one queue", "calls per second", "of Redis, simulated", "of Redis, measured"), rows)


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


def write(measured, simulated):
    """Write all tables."""
    fill(
        {
            "costs": costs(measured),
            "limits": limits(measured),
            "idle": idle(measured, simulated),
            "drain": drain(measured),
            "simulation": simulation(simulated),
            "check": check(simulated),
        }
    )
