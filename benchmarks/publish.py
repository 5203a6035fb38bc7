"""How fast one producer process sends calls to Redis: umbel beside other queues, and beside a bare client that sends the same bytes.

Each run is a fresh process that first sends some calls to warm up, then times its loop by itself (peers/send.py): only the public call of
each queue stands in the loop. "async" is `adelay()` from 100 coroutines of one loop. The bare client (redis-py) pushes the very bytes of
a call of umbel's: one command per message (loop), 500 commands of one message in one round trip (pipeline), 500 messages in one command
(bulk). The own client does the first of these with the client of umbel's Redis driver. Results are off, and also on for Celery and
umbel, as Celery's calls cost more then. Rounds are interleaved.
"""

import os
import tempfile
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    chosen,
    emptied,
    environment,
    finish,
    interleaved,
    machine,
    redis_server,
    say,
    send,
    summary,
    table,
    versions,
)
from _queues import CLIENT, FLOOR, OWN_CLIENT, QUEUES

WARMUP = 100
KEY = "celery"  # the queue of umbel's calls, in Celery's own layout


def sample(server, folder):
    """Send one call of umbel's and keep its bytes for the bare client."""
    server.clear()
    send(QUEUES[0], "loop", 1, env=environment(server.url))
    raw = server.client.lindex(KEY, 0)
    if raw is None:
        raise SystemExit(f"umbel's call is not in the list {KEY!r} of {server.url}: {server.client.keys()}")
    path = Path(folder) / "message"
    path.write_bytes(raw)
    return path


def cases_of(queues):
    """What is timed: (queue, way, results)."""
    for queue in queues:
        yield queue, "loop", False
        if queue.bulk:
            yield queue, "bulk", False
        if queue.name in ("umbel", "celery"):
            yield queue, "loop", True
        if queue.name == "umbel":
            yield queue, "async", False
    yield OWN_CLIENT, "loop", False
    for way in ("loop", "pipeline", "bulk"):
        yield CLIENT, way, False


def main():
    parser = arguments(__doc__.splitlines()[0], count=4_000, queues=True)
    parser.add_argument("--one-cpu", action="store_true", help="bind producer and private server to one CPU: no waking of an idle one")
    options = parser.parse_args()
    if options.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # what is started from here on inherits it
    queues = list({queue.module: queue for queue in reversed(chosen(options.only)) if queue != FLOOR}.values())[
        ::-1
    ]  # shapes of a worker do not matter here
    cases = list(cases_of(queues))
    name = "publish_one_cpu" if options.one_cpu else "publish"
    result = {"benchmark": name, "one_cpu": options.one_cpu, "machine": machine(), "versions": versions(queues), "runs": []}
    with redis_server() as server, tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        message = sample(server, folder)
        result["bytes_per_message"] = message.stat().st_size
        for number, (queue, way, results) in interleaved(cases, options.rounds):
            count = options.count * (1 if way == "loop" else 5)
            label = {"round": number, "queue": queue.name, "way": way, "results": results}
            env = environment(server.url, results=results, BENCH_BYTES=str(message))
            try:
                with emptied(queue, server):
                    run = send(queue, way, count, env=env, warmup=WARMUP)
            except BenchError as exc:
                say(str(exc))
                result["runs"].append(label | {"error": str(exc)})
                continue
            run["rate"] = count / run["seconds"]
            say(f"round {number}: {queue.name}, {way}, results {'on' if results else 'off'}: {run['rate']:,.0f}/s")
            result["runs"].append(label | run)
    result["medians"] = medians(cases, result["runs"])
    result["ratios"] = ratios(result["medians"])
    show(result["medians"], result["ratios"])
    finish(result, options)


def medians(cases, runs):
    """Condense the rounds of each case."""
    found = []
    for queue, way, results in cases:
        mine = [run for run in runs if (run["queue"], run["way"], run["results"]) == (queue.name, way, results) and "rate" in run]
        if mine:
            cpu = summary(run["cpu_seconds"] / run["count"] * 1e6 for run in mine)["median"]
            rate = summary(run["rate"] for run in mine)
            found.append({"queue": queue.name, "way": way, "results": results, "rate": rate, "cpu_us_per_call": cpu})
    return found


def ratios(lines):
    """The figures that umbel is held to, from the medians."""
    rate = {(line["queue"], line["way"], line["results"]): line["rate"]["median"] for line in lines}

    def ratio(over, under):
        return rate[over] / rate[under] if over in rate and under in rate else None

    loop, bulk = ("umbel", "loop", False), ("umbel", "bulk", False)
    return {
        "loop_over_celery": ratio(loop, ("celery", "loop", False)),
        "loop_over_celery_with_results": ratio(("umbel", "loop", True), ("celery", "loop", True)),
        "bulk_over_loop": ratio(bulk, loop),
        "async_over_loop": ratio(("umbel", "async", False), loop),
        "loop_over_own_client": ratio(loop, (OWN_CLIENT.name, "loop", False)),
        "loop_over_bare_client": ratio(loop, (CLIENT.name, "loop", False)),
        "bulk_over_pipelined": ratio(bulk, (CLIENT.name, "pipeline", False)),
        "bulk_over_bare_client": ratio(bulk, (CLIENT.name, "bulk", False)),
    }


def show(lines, found):
    """Print the table, the fastest first."""
    rows = [
        (
            line["queue"],
            line["way"],
            "on" if line["results"] else "off",
            f"{line['rate']['median']:,.0f}",
            f"{line['rate']['min']:,.0f}-{line['rate']['max']:,.0f}",
            f"{line['cpu_us_per_call']:.0f}",
        )
        for line in sorted(lines, key=lambda line: (line["way"], -line["rate"]["median"]))
    ]
    table("Calls sent by one process", ("queue", "way", "results", "median/s", "rounds/s", "cpu us"), rows)
    for name, value in found.items():
        say(f"  {name.replace('_', ' ')}: {value:.2f}" if value else f"  {name.replace('_', ' ')}: not measured")


if __name__ == "__main__":
    main()
