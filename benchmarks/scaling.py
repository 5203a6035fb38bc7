"""How rates grow with workers and queues on one Redis, what each task costs that Redis, and what workers cost it that have nothing to do.

Each worker runs one process (`-c 1`) and consumes all queues. All are up and idle before the first message is there: the messages are
put under another key, which is renamed when the workers wait. The clock runs from the first record in the ledger to the last.

What limits the rates is said by two shares: that of Redis, which uses one CPU at most, and that of the machine. Where the machine is
busy before Redis is, a row says what this machine carries, and `redis us` what one Redis would: 1 / that figure is its limit.
`benchmarks/simulate.py` takes the costs of the single calls, which are measured here, too, to a thousand workers.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import _costs
from _harness import (
    TICK,
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
    send,
    summary,
    table,
    tree_cpu,
    versions,
    wait_until,
)
from _queues import QUEUES, Queue

UMBEL = QUEUES[0]
APP = Queue(name="umbel", module="scaling_app", environment="")
LIMIT = 90  # seconds for one drain
MARGIN = 0.05  # of the tasks, at both ends of a drain: there not all workers have something to do


def names(queues):
    """The names of the queues."""
    return [f"q{number}" for number in range(queues)]


@contextlib.contextmanager
def workers(count, queues, *, env, folder):
    """Run so many workers."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            home = Path(folder) / str(number)
            home.mkdir()
            command = f"umbel -A scaling_app worker -P prefork -c 1 -n w{number}@bench -Q {','.join(names(queues))}"
            program, *rest = command.split()
            found.append(stack.enter_context(running([str(UMBEL.bin / program), *rest], env=env, folder=home)))
        yield found


def wait_for_owners(server, count, queues):
    """Wait until all workers are in the tables of all queues, and their processes are up."""
    client = server.client
    wait_until(lambda: all(client.zcard(f"{{{name}}}.owners") == count for name in names(queues)), 60, "not all workers came up")
    wait_until(lambda: all(client.scard(f"{{{name}}}.idle") for name in names(queues)), 20, "no worker waits")
    time.sleep(0.7)  # the last of them


def drain(case, count, server):
    """Fill the queues beside their names, start the workers, give the messages to them, and watch."""
    amount, queues, seconds = case
    server.clear()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, ledger=ledger, BENCH_QUEUES=str(queues), BENCH_WORK=str(seconds))
        send(APP, "bulk", count, env=env)
        ledger.write_bytes(b"")
        for name in names(queues):
            server.client.rename(name, f"kept:{name}")
        with workers(amount, queues, env=env, folder=folder) as found:
            wait_for_owners(server, amount, queues)
            for name in names(queues):
                server.client.rename(f"kept:{name}", name)
            return watch(found, ledger, count, server) | exact(records(ledger), count)


def watch(found, ledger, count, server):
    """Wait for most of the tasks; return rate and CPU of workers and server between the margins."""
    first, last = int(count * MARGIN), int(count * (1 - MARGIN))

    def look(least):
        deadline = time.monotonic() + LIMIT
        while (done := count_of(ledger)) < least:
            if time.monotonic() > deadline:
                raise BenchError(f"only {done} of {count} tasks ran in {LIMIT} s")
            time.sleep(0.002)
        return done, time.monotonic(), server.cpu(), sum(tree_cpu(worker.pid) for worker in found), parents(found), busy()

    begin = look(first)
    end = look(last)
    tasks, seconds, theirs, ours, asking, all_ours = (after - before for before, after in zip(begin, end, strict=True))
    wait_until(lambda: count_of(ledger) >= count, LIMIT, "the last tasks did not run")
    return {
        "rate": tasks / seconds,
        "redis_cpu_share": theirs / seconds,
        "redis_cpu_us_per_task": theirs / tasks * 1e6,
        "worker_cpu_us_per_task": ours / tasks * 1e6,
        "parent_cpu_us_per_task": asking / tasks * 1e6,
        "machine_share": (theirs + ours) / seconds / os.cpu_count(),
        "busy_share": all_ours / seconds / os.cpu_count(),
    }


def parents(found):
    """CPU seconds of the workers' parents, without the processes that run tasks."""
    stats = [Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split() for worker in found]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICK


def busy():
    """CPU seconds of the whole machine: what is not ours is in our way."""
    user, nice, system, _, _, irq, soft, *_ = (int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + soft) / TICK


def exact(found, count):
    """Did each task run, once?"""
    numbers = {number for _, number in found}
    return {"missing": count - len(numbers), "repeated": len(found) - len(numbers)}


def idle(server, amount, queues, seconds):
    """What workers that have nothing to do ask of Redis, for each of them and each second."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        env = environment(server.url, BENCH_QUEUES=str(queues))
        with workers(amount, queues, env=env, folder=folder) as found:
            wait_for_owners(server, amount, queues)
            time.sleep(11)  # after one lease they look for claims of the dead, too
            before, ours, info = server.cpu(), sum(tree_cpu(worker.pid) for worker in found), server.client.info("stats")
            time.sleep(seconds)
            used, own, after = server.cpu() - before, sum(tree_cpu(worker.pid) for worker in found) - ours, server.client.info("stats")
    share = amount * seconds
    return {
        "workers": amount,
        "queues": queues,
        "redis_cpu_us_per_worker": used / share * 1e6,
        "round_trips_per_worker": (after["total_reads_processed"] - info["total_reads_processed"]) / share,
        "worker_cpu_percent": own / share * 100,
    }


def message(server):
    """A message of the benchmark's task."""
    server.clear()
    send(APP, "bulk", 1, env=environment(server.url))
    return server.client.lindex("q0", 0)


def chosen_cases(options):
    """(workers, queues, seconds of work)."""
    numbers = [int(number) for number in options.workers.split(",")], [int(number) for number in options.queues.split(",")]
    return [(amount, queues, seconds) for seconds in (0.0, options.work) for amount in numbers[0] for queues in numbers[1]]


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=40_000)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--queues", default="1,2,4")
    parser.add_argument("--work", type=float, default=0.001, help="seconds of work in the second half of the table; it runs count/10 tasks")
    parser.add_argument("--idle", type=float, default=5, help="seconds to watch idle workers")
    options = parser.parse_args()
    cases = chosen_cases(options)
    result = {"benchmark": "scaling", "machine": machine(), "versions": versions([UMBEL]), "runs": [], "idle": []}
    with redis_server() as server:
        result["versions"]["redis"] = server.client.info("server")["redis_version"]
        found = [_costs.measure(server, message(server)) for _ in range(options.rounds)]
        result["costs_us"] = {name: summary(each[name] for each in found)["median"] for name in found[0]}
        for number, case in interleaved(cases, options.rounds):
            count = options.count // 10 if case[2] else options.count
            label = dict(zip(("round", "workers", "queues", "work_s"), (number, *case), strict=True))
            try:
                run = drain(case, count, server)
            except BenchError as exc:
                say(f"{label}: {exc}")
                result["runs"].append(label | {"error": str(exc)})
                continue
            say(f"round {number}: {case[0]} workers, {case[1]} queues, work {case[2] * 1000:g} ms: {run['rate']:,.0f}/s")
            result["runs"].append(label | run)
        result["idle"] = [idle(server, amount, queues, options.idle) for amount, queues in ((1, 1), (4, 1), (1, 4))]
        result["herd"] = [_costs.herd(server, number, options.idle) for number in (10, 100, 1000)]
    result["medians"] = medians(cases, result["runs"])
    show(result)
    finish(result, options)


def medians(cases, runs):
    """Condense the rounds of each case."""
    found = []
    for case in cases:
        label = dict(zip(("workers", "queues", "work_s"), case, strict=True))
        mine = [run for run in runs if "rate" in run and all(run[name] == value for name, value in label.items())]
        if mine:
            kinds = [name for name in mine[0] if name.endswith(("_share", "_us_per_task"))]
            more = {name: summary(run[name] for run in mine)["median"] for name in kinds}
            wrong = {name: sum(run[name] for run in mine) for name in ("missing", "repeated")}
            name = f"{case[0]} workers, {case[1]} queues, {case[2] * 1000:g} ms"
            found.append({"case": name} | label | {"rate": summary(run["rate"] for run in mine)} | more | wrong)
    return found


def show(result):
    """Print the tables."""
    rows = [
        (
            f"{line['workers']} x {line['queues']}, {line['work_s'] * 1000:g} ms",
            f"{line['rate']['median']:,.0f}",
            f"{line['rate']['min']:,.0f}-{line['rate']['max']:,.0f}",
            f"{line['redis_cpu_share'] * 100:.0f}",
            f"{line['redis_cpu_us_per_task']:.1f}",
            f"{1e6 / line['redis_cpu_us_per_task']:,.0f}",
            f"{line['worker_cpu_us_per_task']:.0f}",
            f"{line['parent_cpu_us_per_task']:.0f}",
            f"{line['machine_share'] * 100:.0f}",
            f"{line['busy_share'] * 100:.0f}",
            line["missing"] + line["repeated"],
        )
        for line in result["medians"]
    ]
    head = (
        "workers x queues, work",
        "tasks/s",
        "rounds/s",
        "redis %",
        "redis us",
        "its limit/s",
        "worker us",
        "of it parent",
        "of CPUs %",
        "busy %",
        "wrong",
    )
    table("Drain on one Redis (us: CPU per task; busy %: with what others do here)", head, rows)
    idle_head = ("idle workers x queues", "round trips/s", "redis us/s", "worker CPU %")
    lines = [
        (
            f"{line['workers']} x {line['queues']}",
            f"{line['round_trips_per_worker']:.1f}",
            f"{line['redis_cpu_us_per_worker']:.0f}",
            f"{line['worker_cpu_percent']:.2f}",
        )
        for line in result["idle"]
    ]
    table("Idle, for each worker", idle_head, lines)
    rows = [(line["workers"], f"{line['round_trips_per_worker']:.1f}", f"{line['redis_cpu_share'] * 100:.1f}") for line in result["herd"]]
    table("The calls of idle workers, from one process", ("workers", "round trips/s of each", "redis %"), rows)
    table("CPU us of one call, on Redis", ("call", "us"), [(name, f"{value:.1f}") for name, value in result["costs_us"].items()])


if __name__ == "__main__":
    main()
