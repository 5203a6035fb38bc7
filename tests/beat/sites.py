"""Projects with periodic tasks, whose schedulers and workers are programs."""

import os
import re
import struct
import subprocess
import sys
from collections import Counter
from datetime import datetime

from tests.chaos.world import compile_shim
from tests.processes import Running, wait_for

from umbel import Umbel
from umbel.wire.message import decode

APP = """
import os
from umbel import Umbel

app = Umbel("beat_app", broker=os.environ["BEAT_BROKER"])
app.conf.task_default_queue = "periodic"
app.conf.broker_transport_options = {"global_keyprefix": os.environ["BEAT_PREFIX"]} if os.environ["BEAT_PREFIX"] else {}
app.conf.umbel_state_url = os.environ.get("BEAT_STATE")
app.conf.beat_schedule = {"tick": {"task": "tasks.tick", "schedule": 1.0, "misfire": "all"}}
"""


class Clock:
    """A time of day that some programs see: the machine's and some *seconds*, which may be set."""

    def __init__(self, shim, file, seconds=0):
        self.file, self.env = file, {"LD_PRELOAD": str(shim), "CHAOS_SKEW": str(file)}
        file.write_bytes(bytes(8))
        self.set(seconds)

    def set(self, seconds):
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e6)))


def new_clock(folder, seconds=0):
    """A clock that is *seconds* off; None where there is no C compiler."""
    shim = compile_shim(folder)
    return Clock(shim, folder / f"clock{len(list(folder.glob('clock*')))}", seconds) if shim else None


class Site:
    """A project with one periodic task, and what was sent of it."""

    def __init__(self, folder, url, prefix="", app=APP):
        self.has_a_clock = not url.startswith("sqlite")  # a server's: a file has that of the host
        self.folder, self.prefix, self.programs, self.seen, self.seq = folder, prefix, 0, Counter(), 0
        self.ids = set()
        self.env = {**os.environ, "BEAT_BROKER": url, "BEAT_PREFIX": prefix, "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"}
        self.env.pop("DJANGO_SETTINGS_MODULE", None)
        (folder / "beat_app.py").write_text(app)
        self.app = Umbel("reader", broker=url, set_as_current=False)
        if prefix:
            self.app.conf.broker_transport_options = {"global_keyprefix": prefix}
        self.app.broker.join("reader", ["periodic"], lease=3600)

    def start(self, *words, clock=None):
        self.programs += 1
        command = [sys.executable, "-m", "umbel", "-A", "beat_app", *words, "-l", "INFO"]
        env = self.env | (clock.env if clock else {})
        return Running(command, cwd=self.folder, env=env, log=self.folder / f"{self.programs}.log")

    def beat(self, *words, clock=None):
        return self.start("beat", *words, clock=clock)

    def clock(self, seconds=0):
        """A clock for programs, which is *seconds* off; None where there is no C compiler."""
        return new_clock(self.folder, seconds)

    def umbel(self, *words):
        command = [sys.executable, "-m", "umbel", "-A", "beat_app", *words]
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def slots(self):
        """The names of all runs so far, each as often as it was sent."""
        while True:
            self.seq += 1
            found = self.app.broker.fetch("periodic", 1000, owner="reader", seq=self.seq)
            if not found:
                return self.seen
            headers = [decode(each.raw).headers for each in found]
            self.seen.update(each.get("umbel_slot") for each in headers)
            self.ids.update(each["id"] for each in headers)

    def waits_for(self, count):
        wait_for(lambda: len(self.slots()) >= count, 60, self.logs)

    def logs(self):
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))


def leads(program):
    return " leads (term" in program.log() and program.process.poll() is None


def leader_of(programs):
    """Which of *programs* leads: the one with the last term. None: nobody that lives."""
    terms = {program: [int(term) for term in re.findall(r" leads \(term (\d+)", program.log())] for program in programs}
    last = max((program for program in programs if terms[program]), key=lambda program: terms[program][-1], default=None)
    return last if last is not None and last.process.poll() is None else None


def moments(slots, name="tick"):
    """The slots of an entry, in seconds since the epoch."""
    named = [slot.rpartition("@") for slot in slots]
    return sorted(datetime.fromisoformat(moment).timestamp() for entry, _, moment in named if entry == name)


def all_once_without_gap(slots):
    """Each slot once, and none left out: `misfire="all"` makes up for what was missed while nobody led."""
    found = moments(slots)
    assert set(slots.values()) == {1}, slots
    assert found == [found[0] + n for n in range(len(found))]
