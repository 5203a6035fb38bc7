"""What a task costs Redis, in counts instead of seconds: commands, round trips and CPU time, in publishing and in the drain.

A count hardly depends on how busy the machine is. Each case runs twice: once plainly, for the CPU time, the round trips and all commands by
name (`commandstats`, which counts what scripts call, too), and once under MONITOR, which tells a client's commands from a script's.
A round trip is a read event of the server or a write event, whichever are fewer: what is pipelined is one, but a request that is larger
than 16 KB is read in several parts, and a large reply is written in several.
The drain is counted from its first record to its last, as in drain.py; what a worker does at its start and at its end is left out.
The counters are those of the whole server: with BENCH_REDIS_URL nobody else may use it.
"""

import contextlib
import re
import socket
import tempfile
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from _harness import (
    BenchError,
    arguments,
    chosen,
    count_of,
    emptied,
    environment,
    finish,
    machine,
    redis_server,
    running,
    say,
    send,
    table,
    versions,
    wait_until,
)
from _queues import FLOOR, QUEUES

UMBEL = QUEUES[0]

LINE = re.compile(rb'^\+[\d.]+ \[\d+ (lua|[^\]]+)\] "([^"]+)"', re.MULTILINE)
OURS = {"info", "flushall", "monitor", "scan", "unlink", "ping"}  # commands of this benchmark
MOST = 3_000  # tasks of the drain of all queues but umbel: they are slow, and hold few messages in advance


def snapshot(server):
    """The counters of the server: commands by name, read events, write events, CPU seconds."""
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in server.client.info("commandstats").items()}
    calls = Counter({name: number for name, number in calls.items() if name.partition("|")[0] not in OURS})
    stats = server.client.info("stats")
    return calls, stats["total_reads_processed"], stats["total_writes_processed"], server.cpu()


class Plain:
    """Counts what the server counts by itself."""

    def __init__(self, server):
        self.server = server

    def start(self):
        self.before = snapshot(self.server)

    def stop(self, tasks):
        """Return the figures per task since the start."""
        (calls, reads, writes, used), (old_calls, old_reads, old_writes, old_used) = snapshot(self.server), self.before
        # The benchmark itself asks three times between the two readings of these.
        reads, writes = (reads - old_reads - 3) / tasks, (writes - old_writes - 3) / tasks
        return {
            "round_trips": min(reads, writes),
            "read_events": reads,
            "redis_cpu_us": (used - old_used) / tasks * 1e6,
            "commands_with_scripts": (calls - old_calls).total() / tasks,
            "by_name": {name: round(number / tasks, 4) for name, number in (calls - old_calls).most_common() if number / tasks >= 0.0005},
        }


class Monitored:
    """Counts what MONITOR shows; it is read by a thread and looked at in the end."""

    def __init__(self, server):
        self.address = urlsplit(server.url)

    def start(self):
        self.link = socket.create_connection((self.address.hostname, self.address.port))
        self.chunks, self.reader = [], threading.Thread(target=self.read, daemon=True)
        password = f"AUTH {self.address.password}\r\n" if self.address.password else ""
        self.link.sendall(f"{password}MONITOR\r\n".encode())
        self.reader.start()
        wait_until(lambda: b"+OK\r\n" in b"".join(self.chunks[:2]), 5, "MONITOR was not answered")

    def read(self):
        with contextlib.suppress(OSError):
            while chunk := self.link.recv(1 << 20):
                self.chunks.append(chunk)

    def stop(self, tasks):
        """Return the commands of clients per task since the start."""
        self.link.shutdown(socket.SHUT_RDWR)
        self.reader.join(5)
        self.link.close()
        seen = [(source, name.decode().lower()) for source, name in LINE.findall(b"".join(self.chunks))]
        asked = Counter(name for source, name in seen if source != b"lua" and name not in OURS)
        return {
            "client_commands": asked.total() / tasks,
            "commands_in_scripts": sum(source == b"lua" for source, _ in seen) / tasks,
            "client_commands_by_name": {name: round(number / tasks, 4) for name, number in asked.most_common() if number / tasks >= 0.0005},
        }


def publish(queue, way, results, counter, server, count):
    """Count while a fresh process sends calls; the few commands of its start are in it, and small beside so many calls."""
    with emptied(queue, server):
        counter.start()
        send(queue, way, count, env=environment(server.url, results=results))
        return counter.stop(count)


def drain(queue, results, counter, server, count):
    """Count while a worker drains."""
    with emptied(queue, server), tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        ledger = Path(folder) / "ledger"
        env = environment(server.url, results=results, ledger=ledger)
        send(queue, "bulk" if queue.bulk else "loop", count, env=env)
        ledger.write_bytes(b"")
        with running(queue.command(), env=env, folder=folder):
            wait_until(lambda: count_of(ledger) > 0, 60, f"{queue.name}: no task started in 60 s", pause=0.001)
            begun = count_of(ledger)
            counter.start()
            wait_until(lambda: count_of(ledger) >= count, 120, f"{queue.name}: not drained in 120 s", pause=0.002)
            return counter.stop(max(1, count - begun))


def cases_of(queues):
    """What is counted: (queue, what, results)."""
    for queue in queues:
        for results in (False, True) if queue.can_store else (False,):
            if queue != FLOOR:
                yield queue, "publish loop", results
                if queue.bulk:
                    yield queue, "publish bulk", results
            yield queue, "drain", results


def one_case(queue, what, results, server, options):
    """Count one case in both ways."""
    found = {}
    for counter in (Plain(server), Monitored(server)):
        if what == "drain":
            tasks = min(options.count, queue.most if queue.name in {UMBEL.name, FLOOR.name} else MOST)
            found |= drain(queue, results, counter, server, tasks)
        else:
            found |= publish(queue, what.removeprefix("publish "), results, counter, server, options.calls)
    return {"queue": queue.name, "what": what, "results": results} | found


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=1, count=20_000, queues=True)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of one publishing run")
    parser.set_defaults(only="umbel,celery")
    options = parser.parse_args()
    if options.rounds != 1:
        parser.error("counts need no rounds")
    queues = [queue for queue in chosen(options.only) if not queue.store]  # only Redis is asked
    result = {"benchmark": "commands", "machine": machine(), "versions": versions(queues), "cases": []}
    with redis_server() as server:
        for queue, what, results in cases_of(queues):
            label = f"{queue.name}, {what}, results {'on' if results else 'off'}"
            try:
                line = one_case(queue, what, results, server, options)
            except BenchError as exc:
                say(f"{label}: {exc}")
                continue
            result["cases"].append(line)
            say(f"{label}: {line['client_commands']:.3f} commands in {line['round_trips']:.3f} round trips")
    show(result["cases"])
    finish(result, options)


def show(lines):
    """Print the table."""
    head = ("per task", "queue", "results", "round trips", "client commands", "in scripts", "redis us", "the client's commands")
    rows = [
        (
            line["what"],
            line["queue"],
            "on" if line["results"] else "off",
            f"{line['round_trips']:.3f}",
            f"{line['client_commands']:.3f}",
            f"{line['commands_in_scripts']:.2f}",
            f"{line['redis_cpu_us']:.1f}",
            ", ".join(f"{name} {number:.3f}" for name, number in list(line["client_commands_by_name"].items())[:4]),
        )
        for line in sorted(lines, key=lambda line: (line["what"], line["results"], line["client_commands"]))
    ]
    table("What a task costs Redis", head, rows)


if __name__ == "__main__":
    main()
