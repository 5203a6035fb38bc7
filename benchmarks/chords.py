"""A chord of 10,000 members: how long and with how much memory it is sent, and from the end of its last member to the start of its body.

umbel on Redis, on SQLite and on PostgreSQL (that of BENCH_PG_URL), Celery on Redis; one worker with one process that runs tasks. A
member writes the time, and the body does. The chord is sent to a worker that runs.
"""

import contextlib
import json
import subprocess
import tempfile
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
    versions,
    wait_until,
)
from _queues import APPS, QUEUES

import postgres

UMBEL, CELERY = QUEUES[0], QUEUES[1]
BODY, SMALL = -1, 3  # the body's number; members of the chord that is sent first
LIMIT = 300  # seconds for one chord
WORKERS = {"umbel": "umbel -A chord_app worker -P prefork -c 1", "celery": "celery -A chord_app worker -c 1"}
FIGURES = ("send_s", "send_mb", "members_s", "body_s")


def command_of(queue):
    """The command line of its worker."""
    program, *rest = WORKERS[queue.name].split()
    return [str(queue.bin / program), *rest]


def measure(queue, url, count):
    """Send a chord to a worker that runs.

    Raises:
        BenchError: its body did not run in time, or ran twice.
    """
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(url or f"sqlite:///{folder}/umbel.sqlite3", results=True, ledger=ledger, BENCH_QUEUE=queue.name)
        with running(command_of(queue), env=env, folder=folder):
            sending = [str(queue.python), str(APPS / "chord_send.py"), str(count)]
            done = subprocess.run(sending, env=env, cwd=APPS, capture_output=True, text=True, timeout=LIMIT, check=False)
            if done.returncode:
                raise BenchError(f"{queue.name}: {done.stderr.strip()[-800:]}")
            expected = SMALL + 1 + count + 1
            wait_until(lambda: count_of(ledger) >= expected, LIMIT, f"{queue.name}: {count_of(ledger)} of {expected} records")
        return figures(json.loads(done.stdout), records(ledger)[SMALL + 1 :], count)


def figures(sent, found, count):
    """The figures of one chord, of what its sender said and of what it wrote.

    Raises:
        BenchError: it did not write what it should.
    """
    members = [stamp for stamp, number in found if number != BODY]
    bodies = [stamp for stamp, number in found if number == BODY]
    if len(members) != count or len(bodies) != 1:
        raise BenchError(f"{len(members)} members and {len(bodies)} bodies ran")
    took = (max(members) - min(members)) / 1e9, (bodies[0] - max(members)) / 1e9
    return dict(zip(FIGURES, (sent["seconds"], sent["megabytes"], *took), strict=True))


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=10_000)
    parser.add_argument("--only", default="", help="umbel/redis, umbel/sqlite, umbel/postgres, celery/redis, with commas")
    options = parser.parse_args()
    present = [UMBEL, *([CELERY] if CELERY.installed else [])]
    result = {"benchmark": "chords", "machine": machine(), "versions": versions(present), "members": options.count, "cases": {}}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis_server())
        cases = {"umbel/redis": (UMBEL, server.url), "umbel/sqlite": (UMBEL, None)}
        if CELERY.installed:
            cases["celery/redis"] = (CELERY, server.url)
        if postgres.there():
            cases["umbel/postgres"] = (UMBEL, stack.enter_context(postgres.database()))
        wanted = options.only.split(",") if options.only else list(cases)
        runs = {}
        for number, name in interleaved([name for name in cases if name in wanted], options.rounds):
            server.clear()
            try:
                runs.setdefault(name, []).append(measure(*cases[name], options.count))
                say(f"round {number}: {name}")
            except BenchError as exc:
                say(f"round {number}: {name}: {exc}")
    for name, found in runs.items():
        result["cases"][name] = {figure: summary(run[figure] for run in found) for figure in FIGURES}
    rows = [[name, *(f"{line[figure]['median']:.3f}" for figure in FIGURES)] for name, line in result["cases"].items() if line["body_s"]]
    table(f"A chord of {options.count} members", ["", "sent in s", "memory MB", "members s", "last member to body s"], rows)
    finish(result, options)


if __name__ == "__main__":
    main()
