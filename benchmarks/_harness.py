"""What the benchmarks share: a private Redis, the queues' environments, workers that are surely ended, medians, JSON and a table."""

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from _queues import APPS, HERE, QUEUES

RESULTS = HERE / "results"
RECORD = struct.Struct("<qq")
TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A run that cannot be counted; the message says why."""


def arguments(description, *, rounds=5, count=None, queues=False):
    """Make the command line; every benchmark has these options, and ends what it started when it is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="write the JSON here too")
    parser.add_argument(
        "--save", action="store_true", help="keep the JSON as benchmarks/results/<benchmark>.json, for plot.py and compare.py"
    )
    if count is not None:
        parser.add_argument("--count", type=int, default=count)
    if queues:
        names = ",".join(queue.name for queue in QUEUES)
        parser.add_argument("--only", default="", help=f"names with commas; all that are installed by default: {names}")
    return parser


def chosen(only):
    """Return the queues to measure, and say which are left out because they are not installed."""
    wanted = [name for name in only.split(",") if name]
    if unknown := set(wanted) - {queue.name for queue in QUEUES}:
        raise SystemExit(f"There is no queue {', '.join(sorted(unknown))}. There are: {', '.join(queue.name for queue in QUEUES)}.")
    queues = [queue for queue in QUEUES if not wanted or queue.name in wanted]
    present = []
    for queue in queues:
        if not queue.installed:
            say(f"{queue.name}: not installed, left out (benchmarks/setup_peers.sh installs it)")
        elif queue.store and (failed := store(queue, "ping")):
            say(f"{queue.name}: its store does not answer, left out: {failed.splitlines()[-1]}")
        else:
            present.append(queue)
    return present


def store(queue, what):
    """Make or drop the store of a queue that does not use Redis, or ask whether it is there; return what it said if that failed."""
    command = [str(queue.python), str(APPS / queue.store), what]
    done = subprocess.run(command, cwd=APPS, capture_output=True, text=True, timeout=60, check=False)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


@contextlib.contextmanager
def emptied(queue, server):
    """Give the queue an empty store for the length of the block.

    Raises:
        BenchError: its store, which is not Redis, cannot be made.
    """
    server.clear()
    if not queue.store:
        yield
        return
    if failed := store(queue, "make"):
        raise BenchError(f"{queue.name}: {failed[-800:]}")
    try:
        yield
    finally:
        store(queue, "drop")


def say(text):
    """Print progress where it is not in the way of the JSON."""
    print(text, file=sys.stderr, flush=True)


# --- the server


def free_port():
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(slots=True, kw_only=True)
class Server:
    """A Redis database that only this benchmark uses."""

    url: str
    client: object
    private: bool

    def clear(self):
        """Delete what the last run left. A server that is not ours is never flushed: the keys were all made by us."""
        if self.private:
            self.client.flushall()
            return
        for key in self.client.scan_iter(count=1000):
            self.client.unlink(key)

    def cpu(self):
        """CPU seconds that the server used so far."""
        info = self.client.info("cpu")
        return info["used_cpu_sys"] + info["used_cpu_user"]


@contextlib.contextmanager
def redis_server():
    """Give a Redis: the one of BENCH_REDIS_URL, whose database must be empty, or a private one that keeps nothing on disk."""
    import redis

    if url := os.environ.get("BENCH_REDIS_URL"):
        server = Server(url=url, client=redis.Redis.from_url(url), private=False)
        if server.client.dbsize():
            raise SystemExit(
                f"The database of {url} has keys. Give BENCH_REDIS_URL a database that is empty, such as redis://host:6379/15."
            )
        try:
            yield server
        finally:
            server.clear()
        return
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("There is no redis-server. Install it (apt-get install redis-server), or name one by BENCH_REDIS_URL.")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir", folder]
        process = subprocess.Popen([binary, "--bind", "127.0.0.1", "--port", str(port), *quiet], stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        try:
            wait_until(lambda: answers(client), 10, "redis-server did not answer")
            yield Server(url=f"redis://127.0.0.1:{port}/0", client=client, private=True)
        finally:
            process.terminate()
            process.wait()


def answers(client):
    """Does the server answer?"""
    with contextlib.suppress(Exception):
        return client.ping()
    return False


def wait_until(met, seconds, failure, pause=0.01):
    """Wait for a condition.

    Raises:
        BenchError: it was not met in time.
    """
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise BenchError(failure)
        time.sleep(pause)


# --- processes


def environment(url, *, results=False, ledger=None, **more):
    """The environment of an app."""
    given = {"BENCH_URL": url, "BENCH_RESULTS": "on" if results else "off", "PYTHONPATH": str(APPS), "RQ_REDIS_URL": url}
    if ledger is not None:
        given["BENCH_LEDGER"] = str(ledger)
    # Users have compiled modules; where they are not written, each start would compile again.
    return {name: value for name, value in {**os.environ, **given, **more}.items() if name != "PYTHONDONTWRITEBYTECODE"}


def send(queue, way, count, *, env, warmup=0, timeout=300):
    """Send calls from a fresh process and return its own figures.

    Raises:
        BenchError: it failed or took too long.
    """
    command = [str(queue.python), str(APPS / "send.py"), queue.module, way, str(count), str(warmup)]
    try:
        done = subprocess.run(command, env=env, cwd=APPS, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{queue.name}: {way} of {count} calls took more than {timeout} s") from None
    if done.returncode:
        raise BenchError(f"{queue.name}: {way} failed: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tree(pid):
    """The process ids of a process and all that descend from it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, look = [], [pid]
    while look:
        current = look.pop()
        found.append(current)
        look += children.get(current, [])
    return found


def tree_cpu(pid):
    """CPU seconds of a process tree, with those of the children that ended and were waited for."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in fields[11:15])
    return total / TICK


def tree_memory(pid):
    """Proportional set size of a process tree in MB, and of how many processes."""
    total, members = 0, 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            members += 1
    return total / 1024, members


@contextlib.contextmanager
def running(command, *, env, folder, cwd=APPS):
    """Run a worker for the length of the block; then end it, gently at first, and everything that it started."""
    log = Path(folder) / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    except BenchError as exc:
        raise BenchError(f"{exc}; the end of its log:\n{log.read_text(errors='replace')[-1500:]}") from None
    finally:
        stop(process)


def stop(process):
    """End a worker and what descends from it."""
    members = tree(process.pid) if process.poll() is None else []
    if members:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=8)
    for member in members:
        if started_here(member, process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    process.wait()


def started_here(pid, session):
    """Is this still the process that was seen in the tree of our worker, not a newcomer with its number?"""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" and (int(fields[3]) == session or pid == session)
    return False


# --- figures


def interleaved(items, rounds):
    """Yield every item once per round, each round in another order, so that a slow minute of the machine hits all."""
    for number in range(rounds):
        order = list(items)
        random.Random(number).shuffle(order)
        for item in order:
            yield number + 1, item


def summary(values):
    """Median, smallest and largest of some rounds."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values} if values else None


def percentile(values, share):
    """The value that *share* of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine():
    """What the figures were made on."""
    load = os.getloadavg()[0]
    return {
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "load_at_start": round(load, 2),
        "system": platform.platform(),
        "kernel": platform.release(),
        "redis": redis_version(),
    }


def cpu_model():
    """What the processor calls itself."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or "?"


def redis_version():
    """The version of the Redis that is measured; without one, nothing."""
    if url := os.environ.get("BENCH_REDIS_URL"):
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
            return client.info("server")["redis_version"]
        return None
    if binary := shutil.which("redis-server"):
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.split()
        return next((word.removeprefix("v=") for word in said if word.startswith("v=")), None)
    return None


def commit():
    """The commit that is checked out, with a + if files differ from it; None outside of a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True).stdout
        # The results themselves change while a whole suite is measured.
        changes = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results"]
        changed = subprocess.run(changes, cwd=HERE, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+" if changed.strip() else "")


def versions(queues):
    """The installed versions of what was measured."""
    found = {}
    for queue in queues:
        name = queue.package.replace("_", "-")
        code = f"from importlib.metadata import version; import platform; print(version('{name}'), platform.python_version())"
        done = subprocess.run([queue.python, "-c", code], capture_output=True, text=True, check=False)
        found[queue.name] = "{} (Python {})".format(*done.stdout.split()) if done.returncode == 0 else "?"
    return found


def table(title, head, rows):
    """Print a small table for the eye, to the terminal's side of things."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    say(f"\n{title}")
    for row in cells:
        say(
            "  "
            + "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )


def finish(result, options):
    """Print the JSON, and write it where it was asked for."""
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    result = {"benchmark": result["benchmark"]} | made | result
    text = json.dumps(result, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{result['benchmark']}.json").write_text(text + "\n")
    print(text)


# --- the ledger


def records(path):
    """Read the ledger: (time in ns, number of the call)."""
    data = Path(path).read_bytes()
    return [RECORD.unpack_from(data, offset) for offset in range(0, len(data) - len(data) % RECORD.size, RECORD.size)]


def count_of(path):
    """How many records are in the ledger."""
    try:
        return Path(path).stat().st_size // RECORD.size
    except FileNotFoundError:
        return 0
