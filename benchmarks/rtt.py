"""How much of a queue's rate is left when Redis is further away: umbel and Celery through a proxy that adds 0, 1 and 2 ms to a round trip.

The proxy is a process of its own (_proxy.py) and does not limit the bandwidth; at 0 ms it is in the way, too, so that only the distance
differs. What a PING takes through it is measured and stands in the table. The drain's queue is filled past the proxy; its clock is that
of drain.py. The loop is that of publish.py. Results are off; `--results on` measures the other.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import redis
from _harness import (
    BenchError,
    arguments,
    chosen,
    count_of,
    environment,
    finish,
    interleaved,
    machine,
    percentile,
    records,
    redis_server,
    running,
    say,
    send,
    summary,
    table,
    versions,
    wait_until,
)
from _queues import HERE, QUEUES

UMBEL = QUEUES[0]
LIMIT = 60  # seconds for one drain; what did not finish is rated by what it did


@contextlib.contextmanager
def proxy(url, milliseconds):
    """Run the proxy before the server at *url*; give the URL that leads through it."""
    server = urlsplit(url)
    command = [sys.executable, str(HERE / "_proxy.py"), server.hostname, str(server.port or 6379), str(milliseconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        user, at, _ = server.netloc.rpartition("@")
        yield server._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def ping_ms(url):
    """What a round trip takes, in ms."""
    took = []
    with redis.Redis.from_url(url) as client:
        for _ in range(100):
            begun = time.perf_counter()
            client.ping()
            took.append((time.perf_counter() - begun) * 1e3)
    return percentile(took, 0.5)


def drain(queue, results, server, url, count):
    """Fill past the proxy, drain through it; return tasks per second."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        send(queue, "bulk" if queue.bulk else "loop", count, env=environment(server.url, results=results, ledger=ledger))
        ledger.write_bytes(b"")
        with running(queue.command(), env=environment(url, results=results, ledger=ledger), folder=folder):
            wait_until(lambda: count_of(ledger) > 0, 60, f"{queue.name}: no task started in 60 s")
            with contextlib.suppress(BenchError):
                wait_until(lambda: count_of(ledger) >= count, LIMIT, "")
        found = records(ledger)
    stamps, numbers = [stamp for stamp, _ in found], {number for _, number in found}
    return (len(numbers) - 1) / max(1e-9, (max(stamps) - min(stamps)) / 1e9)


def one_run(queue, what, results, milliseconds, server, options):
    """Measure one queue at one distance."""
    server.clear()
    with proxy(server.url, milliseconds) as url:
        run = {"ping_ms": ping_ms(url)}
        if what == "drain":
            return run | {"rate": drain(queue, results, server, url, options.count if queue == UMBEL else options.count // 10)}
        sent = send(queue, "loop", options.calls, env=environment(url, results=results), warmup=50)
        return run | {"rate": sent["count"] / sent["seconds"]}


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=20_000, queues=True)
    parser.add_argument("--calls", type=int, default=1_000, help="calls of one publishing run")
    parser.add_argument("--ms", default="0,1,2", help="what is added to a round trip, with commas")
    parser.add_argument("--results", choices=("off", "on"), default="off")
    parser.set_defaults(only="umbel,celery")
    options = parser.parse_args()
    queues = [queue for queue in chosen(options.only) if not queue.store]  # the proxy stands before Redis
    distances = [float(value) for value in options.ms.split(",")]
    cases = [(queue, what, distance) for queue in queues for what in ("loop", "drain") for distance in distances]
    result = {"benchmark": "rtt", "results": options.results, "machine": machine(), "versions": versions(queues)}
    runs = {}
    with redis_server() as server:
        for number, (queue, what, distance) in interleaved(cases, options.rounds):
            try:
                run = one_run(queue, what, options.results == "on", distance, server, options)
            except BenchError as exc:
                say(f"round {number}: {queue.name}, {what}, {distance:g} ms: {exc}")
                continue
            runs.setdefault((queue.name, what, distance), []).append(run)
            say(f"round {number}: {queue.name}, {what}, {distance:g} ms: {run['rate']:,.0f}/s")
    result["cases"] = condensed(runs)
    show(result["cases"])
    finish(result, options)


def condensed(runs):
    """The medians, what each is of that at the smallest distance, and how many times Celery's."""
    rates = {key: summary(run["rate"] for run in found) for key, found in runs.items()}
    nearest = min((distance for _, _, distance in rates), default=0)

    def ratio(over, under):
        return rates[over]["median"] / rates[under]["median"] if under in rates else None

    return [
        {
            "queue": name,
            "what": what,
            "added_ms": distance,
            "ping_ms": summary(run["ping_ms"] for run in runs[name, what, distance])["median"],
            "rate": rate,
            "of_nearest": ratio((name, what, distance), (name, what, nearest)),
            "times_celery": ratio((name, what, distance), ("celery", what, distance)),
        }
        for (name, what, distance), rate in sorted(rates.items(), key=lambda item: (item[0][1], item[0][2], -item[1]["median"]))
    ]


def show(lines):
    """Print the table."""
    head = ("what", "added ms", "queue", "ping ms", "median/s", "rounds/s", "of the nearest", "x celery")
    rows = [
        (
            line["what"],
            f"{line['added_ms']:g}",
            line["queue"],
            f"{line['ping_ms']:.2f}",
            f"{line['rate']['median']:,.0f}",
            f"{line['rate']['min']:,.0f}-{line['rate']['max']:,.0f}",
            f"{line['of_nearest']:.2f}" if line["of_nearest"] else "-",
            f"{line['times_celery']:.1f}" if line["times_celery"] else "-",
        )
        for line in lines
    ]
    table("Calls (loop) and drain through a proxy that adds to each round trip", head, rows)


if __name__ == "__main__":
    main()
