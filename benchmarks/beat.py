"""Schedulers with 100,000 entries: how soon an edit counts, how late runs are, how many they send, what an idle one costs, and a failover.

umbel beat with its entries in Redis, and in a table of Django on SQLite; beside it, in the same rounds, Celery's beat with entries in its
settings, with django-celery-beat on SQLite, and with RedBeat in Redis. Each runs as a program; `peers/beat_editor.py` puts entries into its
store, and this one reads the messages: each call has the entry's name as its argument.

What takes Celery's very long is bounded: `--patience` seconds for each edit and for the first run, few edits, few entries of one second.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _harness import (
    BenchError,
    arguments,
    finish,
    interleaved,
    machine,
    percentile,
    redis_server,
    running,
    say,
    stop,
    summary,
    table,
    tree_cpu,
    tree_memory,
    wait_until,
)
from _queues import APPS, OURS, PEERS

from umbel import Umbel
from umbel.beat.planning import slot_of

NAME, SLOT = re.compile(rb'"argsrepr": ?"[(\[]\'([^\']+)'), re.compile(rb'"umbel_slot": ?"([^"]+)"')
THEIRS = PEERS / "beat" / "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One scheduler, and where its entries are."""

    name: str
    command: str
    table: str = ""  # the Django app that has it
    bin: object = THEIRS
    edited: bool = True  # can entries be put while it runs?
    edits: int = 3
    rate: int = 2000  # entries of one second
    packages: tuple = ("celery",)

    @property
    def ours(self):
        """Is it umbel?"""
        return self.name.startswith("umbel")

    @property
    def installed(self):
        """Can it be imported?"""
        code = "import " + ", ".join({"celery-redbeat": "redbeat"}.get(name, name.replace("-", "_")) for name in self.packages)
        python = self.bin / "python"
        return python.exists() and subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0

    def environment(self, url, folder, **more):
        """The environment of the program and of the editor."""
        site = {"DJANGO_SETTINGS_MODULE": "beat_settings", "BENCH_TABLE": self.table, "BENCH_DATABASE": f"{folder}/site.sqlite3"}
        given = {"BENCH_KIND": self.name, "BENCH_URL": url, "PYTHONPATH": str(APPS), **(site if self.table else {})}
        return {**os.environ, **given, **{name: str(value) for name, value in more.items()}}

    def program(self, folder):
        """The command line."""
        first, *rest = self.command.format(folder=folder).split()
        return [str(self.bin / first), *rest]


BEATS = (
    Beat(name="umbel/redis", command="umbel -A beat_app beat", bin=OURS, edits=100, rate=8000, packages=("umbel",)),
    Beat(
        name="umbel/django", command="umbel -A beat_app beat", bin=OURS, edits=50, rate=8000, packages=("umbel",),
        table="umbel.contrib.django.periodic",
    ),
    Beat(name="celery", command="celery -A beat_app beat -s {folder}/beat", edited=False),
    Beat(
        name="django-celery-beat", command="celery -A beat_app beat -S django_celery_beat.schedulers:DatabaseScheduler",
        table="django_celery_beat", packages=("celery", "django-celery-beat"),
    ),
    Beat(name="redbeat", command="celery -A beat_app beat -S redbeat.RedBeatScheduler", edits=20, packages=("celery", "celery-redbeat")),
)  # fmt: skip


class Reader:
    """Takes the messages out of the queue, and notes when each came."""

    def __init__(self, url):
        self.app, self.seq = Umbel("bench", broker=url), 0
        self.broker = self.app.broker
        self.broker.join("reader", ["celery"], lease=3600)

    def read(self, until, enough=None):
        """Return (name of the entry, when it came, its slot or None) of each message until the clock says *until*, or *enough* has come."""
        found = []
        while time.time() < until and (enough is None or not enough(found)):
            self.broker.wait("reader", ["celery"], max(0.0, min(0.05, until - time.time())))
            self.seq += 1
            messages = self.broker.fetch("celery", 2000, owner="reader", seq=self.seq)
            now = time.time()
            found += [seen(message.raw, now) for message in messages]
        return found

    def wait_for(self, name, seconds):
        """Return when the first message of an entry came; None: it did not in time."""
        found = self.read(time.time() + seconds, lambda found: any(each[0] == name for each in found))
        return next((at for each, at, _ in found if each == name), None)

    def close(self):
        """Leave."""
        self.broker.close()


def seen(raw, now):
    """What a message says, without reading all of it."""
    slot = SLOT.search(raw)
    return NAME.search(raw)[1].decode(), now, slot and slot_of(slot[1].decode())


class Editor:
    """The process that puts entries into the store."""

    def __init__(self, beat, env):
        command = [str(beat.bin / "python"), str(APPS / "beat_editor.py")]
        self.process = subprocess.Popen(command, cwd=APPS, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answered("ready")

    def do(self, *what):
        """Do something, and return when it was done."""
        print(json.dumps(what), file=self.process.stdin, flush=True)
        self.answered("done")
        return time.time()

    def answered(self, expected):
        """Wait for the answer."""
        if (said := self.process.stdout.readline().strip()) != expected:
            raise BenchError(f"the editor said {said!r}")

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait(timeout=30)


@contextlib.contextmanager
def program(beat, env, folder, name="leader"):
    """Run one scheduler."""
    within = Path(folder) / name
    within.mkdir()
    with running(beat.program(within), env=env, folder=within) as process:
        yield process


def settled(pid, seconds):
    """Wait until a process does little, as it has read what it has to."""
    spent = [tree_cpu(pid)]

    def quiet():
        time.sleep(1)
        spent.append(tree_cpu(pid))
        return len(spent) > 3 and spent[-1] - spent[-4] < 0.15  # less than 5 %

    with contextlib.suppress(BenchError):
        wait_until(quiet, seconds, "it is never idle")


def idle(process, options):
    """What a scheduler costs that has nothing to do."""
    before = tree_cpu(process.pid)
    time.sleep(options.seconds)
    return (tree_cpu(process.pid) - before) / options.seconds * 100, tree_memory(process.pid)[0]


def measure(beat, url, options):
    """One round of one scheduler whose entries can be edited."""
    line, reader = {}, Reader(url)
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        env = beat.environment(url, folder)
        editor = Editor(beat, env)
        stack.callback(editor.close)
        editor.do("idle", options.count)
        editor.do("now", "first")
        began = time.time()
        leader = stack.enter_context(program(beat, env, folder))
        first = reader.wait_for("first", options.patience)
        line["first_run_s"] = options.patience if first is None else first - began
        settled(leader.pid, options.patience)
        line["reading_cpu_s"] = tree_cpu(leader.pid)
        line["idle_cpu_percent"], line["memory_mb"] = idle(leader, options)
        say(f"  {beat.name}: first run after {line['first_run_s']:.1f} s, idle {line['idle_cpu_percent']:.1f} %")
        line["edit_ms"] = edits(beat, editor, reader, options)
        say(f"  {beat.name}: edits {percentile(line['edit_ms'], 0.5):.0f} ms")
        if beat.ours:
            line["same_second_ms"] = together(editor, reader, 1000)
        line |= sustained(beat, leader, editor, reader, options)
        say(f"  {beat.name}: sent {line['sent_per_second']:.0f}/s")
        if beat.ours:
            line |= failover(beat, env, folder, leader, editor, reader, options)
    return line


def measure_settings(beat, url, options):
    """One round of Celery's own beat, whose entries stand in its settings."""
    line, reader = {}, Reader(url)
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        env = beat.environment(url, folder, BENCH_IDLE=options.count)
        with program(beat, env, folder) as process:
            settled(process.pid, options.patience)
            line["reading_cpu_s"] = tree_cpu(process.pid)
            line["idle_cpu_percent"], line["memory_mb"] = idle(process, options)
        env = beat.environment(url, folder, BENCH_IDLE=options.count, BENCH_EACH=beat.rate)
        began = time.time()
        with program(beat, env, folder, "busy") as process:
            found = reader.read(began + options.patience, bool)
            line["first_run_s"] = found[0][1] - began if found else options.patience
            line |= rated(process, reader, options, beat.rate)
    return line


def edits(beat, editor, reader, options):
    """Put entries that are due at once, ten in a second, and return how long each took to be sent; of slow ones, one after the other."""
    asked, found = {}, []
    for n in range(beat.edits):
        began = time.time()
        name = f"edit{n}"
        asked[name] = editor.do("now", name)
        if beat.ours or beat.name == "redbeat":
            found += reader.read(began + 0.1)
        else:
            at = reader.wait_for(name, options.patience)
            found.append((name, asked[name] + options.patience if at is None else at, None))
    waits_for = set(asked)
    found += reader.read(time.time() + 10, lambda new: waits_for <= {each[0] for each in [*found, *new]})
    first = {}
    for name, at, _ in found:
        first.setdefault(name, at)
    return [(first.get(name, at + options.patience) - at) * 1000 for name, at in asked.items()]


def together(editor, reader, count):
    """Let *count* entries be due in one second; return how late the last was."""
    at = int(time.time()) + 6
    editor.do("together", count, at)
    found = [came - at for name, came, _ in reader.read(at + 5) if name.startswith("same")]
    if len(found) != count:
        raise BenchError(f"{len(found)} of {count} were sent")
    return max(found) * 1000


def sustained(beat, leader, editor, reader, options):
    """Let many be due each second."""
    rate = beat.rate if not beat.ours or options.rate is None else options.rate
    editor.do("none")
    editor.do("each", rate)
    reader.read(time.time() + options.patience, lambda found: any(name.startswith("each") for name, _, _ in found))
    line = rated(leader, reader, options, rate)
    editor.do("none")
    reader.read(time.time() + 3)
    return line


def rated(process, reader, options, rate):
    """Count what is sent of what is due, and what of a core each takes of the scheduler."""
    reader.read(time.time() + 3)
    start, spent = time.time(), tree_cpu(process.pid)
    found = [each for each in reader.read(start + options.seconds) if each[0].startswith("each")]
    passed, spent = time.time() - start, tree_cpu(process.pid) - spent
    late = [(came - slot) * 1000 for _, came, slot in found if slot is not None]
    return {"due_per_second": rate, "sent_per_second": len(found) / passed, "cpu_us_per_run": spent / max(1, len(found)) * 1e6} | (
        {"late_ms": late} if late else {}
    )


def failover(beat, env, folder, leader, editor, reader, options):
    """Let another stand by, kill the one that leads, and return how long nothing was sent; and what it costs to stand by."""
    with program(beat, env, folder, "standby") as other:
        settled(other.pid, options.patience)
        cost, memory = idle(other, options)
        editor.do("pulse")
        reader.wait_for("pulse", options.patience)
        os.kill(leader.pid, signal.SIGKILL)
        killed = time.time()
        reader.read(killed + 0.2)
        at = reader.wait_for("pulse", options.patience)
        stop(leader)
    return {"failover_s": (options.patience if at is None else at - killed), "standby_cpu_percent": cost, "standby_memory_mb": memory}


def main():
    """Run the rounds."""
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=100_000)
    parser.add_argument("--others", type=int, default=1, help="rounds of Celery's, which are slow")
    parser.add_argument("--rate", type=int, help="umbel's entries of one second; 8,000 by default")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--patience", type=float, default=120, help="seconds after which a slow one is not waited for")
    parser.add_argument("--only", default="", help=f"{', '.join(beat.name for beat in BEATS)}: names with commas")
    options = parser.parse_args()
    wanted = [beat for beat in BEATS if not options.only or beat.name in options.only.split(",")]
    present = [beat for beat in wanted if beat.installed]
    for beat in set(wanted) - set(present):
        say(f"{beat.name}: not installed, left out (benchmarks/setup_peers.sh installs it)")
    result = {"benchmark": "beat", "machine": machine(), "versions": versions(present), "count": options.count, "cases": {}}
    runs, loads = {}, []
    with redis_server() as server:
        for number, beat in interleaved(present, options.rounds):
            if not beat.ours and number > options.others:
                continue
            server.clear()
            loads.append(round(os.getloadavg()[0], 1))
            try:
                runs.setdefault(beat.name, []).append((measure if beat.edited else measure_settings)(beat, server.url, options))
                say(f"round {number}: {beat.name} (load {loads[-1]})")
                say(json.dumps(condensed(runs[beat.name][-1:])))
            except (BenchError, OSError, subprocess.SubprocessError) as exc:
                say(f"round {number}: {beat.name}: {exc}")
    result["loads"] = loads
    result["cases"] = {name: condensed(found) for name, found in runs.items() if found}
    show(result["cases"], options)
    finish(result, options)


def versions(beats):
    """What is installed."""
    found = {}
    for beat in beats:
        code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        done = subprocess.run([beat.bin / "python", "-c", code, *beat.packages], capture_output=True, text=True, check=False)
        found[beat.name] = ", ".join(map(" ".join, zip(beat.packages, done.stdout.split(), strict=False)))
    return found


def condensed(runs):
    """Figures over all rounds."""
    line = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        if isinstance(values[0], list):
            flat = [value for some in values for value in some]
            line[name] = {"p50": percentile(flat, 0.5), "p99": percentile(flat, 0.99), "max": max(flat), "of": len(flat)}
        else:
            line[name] = summary(values)
    return line


def show(cases, options):
    """Print the table."""
    names = list(cases)

    def cell(case, key, digits=0):
        value = cases[case].get(key)
        if value is None:
            return "-"
        return f"{value['median']:.{digits}f}" if "median" in value else " ".join(f"{value[each]:.0f}" for each in ("p50", "p99", "max"))

    keys = (
        ("the first run after, s", "first_run_s", 1), ("  CPU until all is read, s", "reading_cpu_s", 1),
        ("idle CPU, %", "idle_cpu_percent", 1), ("memory, MB", "memory_mb", 0),
        ("an edit counts after, ms: p50, p99, max", "edit_ms", 0), ("1,000 in one second: the last late by, ms", "same_second_ms", 0),
        ("due each second", "due_per_second", 0), ("  sent per second", "sent_per_second", 0),
        ("  CPU of each, us", "cpu_us_per_run", 0), ("  late by, ms: p50, p99, max", "late_ms", 0),
        ("silent after kill -9 of the leader, s", "failover_s", 1), ("idle CPU of who stands by, %", "standby_cpu_percent", 1),
        ("  its memory, MB", "standby_memory_mb", 0),
    )  # fmt: skip
    table(
        f"{options.count:,} entries", ["", *names], [[label, *(cell(name, key, digits) for name in names)] for label, key, digits in keys]
    )


if __name__ == "__main__":
    main()
