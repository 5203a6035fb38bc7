"""`umbel beat` and `umbel worker -B` as programs: each slot once, whoever is killed, and what the command line says."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime

import pytest
from tests import servers
from tests.faults.conftest import running_redis
from tests.processes import Running, wait_for
from tests.rabbitmq import delete_queues

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
REDIS, POSTGRES = (pytest.param(name, marks=mark) for name, mark in (("redis", pytest.mark.redis), ("postgresql", pytest.mark.postgres)))


class Site:
    """A project with one periodic task, and what was sent of it."""

    def __init__(self, folder, url, prefix=""):
        self.folder, self.prefix, self.programs, self.seen, self.seq = folder, prefix, 0, Counter(), 0
        self.ids = set()
        self.env = {**os.environ, "BEAT_BROKER": url, "BEAT_PREFIX": prefix, "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"}
        self.env.pop("DJANGO_SETTINGS_MODULE", None)
        (folder / "beat_app.py").write_text(APP)
        self.app = Umbel("reader", broker=url, set_as_current=False)
        if prefix:
            self.app.conf.broker_transport_options = {"global_keyprefix": prefix}
        self.app.broker.join("reader", ["periodic"], lease=3600)

    def start(self, *words):
        self.programs += 1
        command = [sys.executable, "-m", "umbel", "-A", "beat_app", *words, "-l", "INFO"]
        return Running(command, cwd=self.folder, env=self.env, log=self.folder / f"{self.programs}.log")

    def beat(self, *words):
        return self.start("beat", *words)

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


@pytest.fixture(params=["sqlite", REDIS, POSTGRES])
def site(request, tmp_path):
    if request.param == "sqlite":
        made = Site(tmp_path, f"sqlite:///{tmp_path}/umbel.sqlite3")
    elif request.param == "postgresql":
        made = Site(tmp_path, request.getfixturevalue("postgres_database"))
    else:
        made = Site(tmp_path, request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix"))
    yield made
    made.app.close()


@pytest.fixture
def small(tmp_path):
    made = Site(tmp_path, f"sqlite:///{tmp_path}/umbel.sqlite3")
    yield made
    made.app.close()


@pytest.fixture
def private_redis(tmp_path):
    if servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs a redis-server to kill: apt-get install redis-server")
    with running_redis(tmp_path / "redis") as server:
        yield server


def leads(program):
    return " leads (term" in program.log() and program.process.poll() is None


def moments(slots):
    return sorted(datetime.fromisoformat(name.partition("@")[2]).timestamp() for name in slots)


def all_once_without_gap(slots):
    """Each slot once, and none left out: `misfire="all"` makes up for what was missed while nobody led."""
    found = moments(slots)
    assert set(slots.values()) == {1}, slots
    assert found == [found[0] + n for n in range(len(found))]


@pytest.mark.timeout(180)
def test_of_three_schedulers_one_sends_each_second_once_though_the_leader_is_killed(site):
    running = [site.beat() for _ in range(3)]
    try:
        for kills in range(1, 5):
            leader = wait_for(lambda: next(filter(leads, running), None), 60, site.logs)
            site.waits_for(3 * kills)
            leader.kill()
            running.remove(leader)
            running.append(site.beat())
        site.waits_for(15)
        for each in running:
            each.send(signal.SIGTERM)
            assert each.exit_code() == 0, each.tail()
        all_once_without_gap(site.slots())
    finally:
        for each in running:
            each.__exit__()


@pytest.mark.timeout(120)
def test_who_is_told_to_stop_lets_another_lead_before_its_lease_would_end(site):
    with site.beat() as first:
        first.waits_to_print(" leads (term")
        with site.beat() as second:
            second.waits_to_print("beat: Starting...")
            site.waits_for(2)
            first.send(signal.SIGTERM)
            assert first.exit_code() == 0, first.tail()
            second.waits_to_print(" leads (term")
            site.waits_for(4)
            second.send(signal.SIGINT)
            assert second.exit_code() == 0, second.tail()
    assert "Scheduler: Sending due task tick (tasks.tick)" in first.log()
    assert "beat: Shutting down..." in first.log()
    all_once_without_gap(site.slots())


@pytest.mark.timeout(120)
def test_workers_with_a_scheduler_send_each_second_once(site):
    with site.start("worker", "-B", "-Q", "other", "-n", "a@%h", "-P", "solo") as first:
        first.waits_to_print(" leads (term")
        with site.start("worker", "-B", "-Q", "other", "-n", "b@%h", "-P", "solo") as second:
            second.waits_to_print("beat: Starting...")
            site.waits_for(3)
            first.kill()
            second.waits_to_print(" leads (term")
            site.waits_for(6)
            second.send(signal.SIGTERM)
            assert second.exit_code() == 0, second.tail()
    all_once_without_gap(site.slots())


@pytest.mark.timeout(120)
def test_a_leader_that_was_stopped_for_longer_than_its_lease_leads_no_more(small):
    with small.beat() as program:
        small.waits_for(2)
        program.send(signal.SIGSTOP)  # for longer than the lease
        with small.beat() as other:
            other.waits_to_print(" leads (term")
            small.waits_for(4)
            program.send(signal.SIGCONT)
            program.waits_to_print("does not lead any more")
            small.waits_for(6)
    all_once_without_gap(small.slots())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_store_that_does_not_answer_for_seconds_costs_no_run_and_doubles_none(private_redis, tmp_path, how):
    site = Site(tmp_path, private_redis.url)
    with site.beat() as one, site.beat() as two:
        site.waits_for(2)
        site.app.close()
        private_redis.send(signal.SIGSTOP) if how == "stopped" else private_redis.kill()
        for each in (one, two):
            each.waits_to_print("Trying again every 1 s.", 60)
        private_redis.send(signal.SIGCONT) if how == "stopped" else private_redis.start()
        for each in (one, two):
            each.waits_to_print("beat: Connected to redis://", 60)
        site.waits_for(len(site.slots()) + 3)
        for each in (one, two):
            each.send(signal.SIGTERM)
            assert each.exit_code() == 0, each.tail()
    all_once_without_gap(site.slots())
    site.app.close()


@pytest.mark.amqp
@pytest.mark.timeout(180)
def test_on_rabbitmq_what_is_doubled_has_one_task_id(amqp_url, tmp_path):
    site = Site(tmp_path, amqp_url)
    site.env["BEAT_STATE"] = f"sqlite:///{tmp_path}/state.sqlite3"
    running = [site.beat() for _ in range(2)]
    try:
        for kills in range(1, 4):
            leader = wait_for(lambda: next(filter(leads, running), None), 60, site.logs)
            site.waits_for(3 * kills)
            leader.kill()
            running.remove(leader)
            running.append(site.beat())
        site.waits_for(12)
        found = moments(site.slots())
        assert found == [found[0] + n for n in range(len(found))]
        assert len(site.ids) == len(found)
    finally:
        for each in running:
            each.__exit__()
        site.app.close()
        delete_queues(amqp_url, "periodic")


@pytest.mark.timeout(120)
def test_a_named_class_ticks_in_one_of_two_programs(small):
    (small.folder / "mine.py").write_text(
        "from umbel.beat import PersistentScheduler\n\n\nclass Mine(PersistentScheduler):\n"
        "    def apply_entry(self, entry, producer=None):\n"
        "        super().apply_entry(entry, producer)\n        print('mine:', entry.name)\n"
    )
    (small.folder / "beat_app.py").write_text(APP.replace(', "misfire": "all"', ""))
    with small.beat("-S", "mine:Mine", "-s", "file", "--max-interval", "5") as first:
        first.waits_to_print("mine: tick")
        with small.beat("-S", "mine:Mine", "-s", "file") as second:
            second.waits_to_print(". scheduler -> mine.Mine")
            first.kill()
            second.waits_to_print("mine: tick")
            second.send(signal.SIGTERM)
            assert second.exit_code() == 0, second.tail()
    assert ". maxinterval -> 5 s" in first.log()
    assert list(small.folder.glob("file*"))
    with small.start("worker", "-B", "--scheduler", "mine:Mine", "-s", "file", "-Q", "other", "-P", "solo") as worker:
        worker.waits_to_print("mine: tick")
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()


@pytest.mark.timeout(120)
def test_a_scheduler_in_the_background_has_a_pidfile_and_ends_when_told(small):
    pidfile, log = small.folder / "beat.pid", small.folder / "daemon.log"
    done = small.umbel("beat", "--detach", "--pidfile", str(pidfile), "-f", str(log), "-l", "INFO")
    assert done.returncode == 0, done.stderr
    pid = int(pidfile.read_text())
    try:
        small.waits_for(2)
        again = small.umbel("beat", "--pidfile", str(pidfile))
        assert again.returncode != 0
        assert str(pid) in again.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not pidfile.exists(), 20, small.logs)
    assert "beat: Shutting down..." in log.read_text()


@pytest.mark.timeout(120)
def test_the_schedule_is_seen_and_changed_from_the_command_line(small):
    (listed,) = map(json.loads, small.umbel("beat", "list", "--json").stdout.splitlines())
    assert (listed["name"], listed["task"], listed["enabled"], listed["runs"]) == ("tick", "tasks.tick", True, 0)
    assert "every second" in small.umbel("beat", "list").stdout
    upcoming = [json.loads(line) for line in small.umbel("beat", "next", "tick", "-n", "3", "--json").stdout.splitlines()]
    assert [each["name"] for each in upcoming] == ["tick"] * 3
    assert json.loads(small.umbel("beat", "pause", "tick", "--json").stdout) == {"name": "tick", "enabled": False}
    assert "paused" in small.umbel("beat", "list").stdout
    ran = json.loads(small.umbel("beat", "run", "tick", "--json").stdout)
    assert ran["name"] == "tick"
    assert sum(small.slots().values()) == 1
    assert small.umbel("beat", "resume", "tick").stdout == "tick is resumed.\n"
    for words in (("next", "tik"), ("run", "tik"), ("pause", "tik"), ("resume", "tik")):
        done = small.umbel("beat", *words)
        assert (done.returncode, "There is no periodic task 'tik'. Did you mean 'tick'?" in done.stderr) == (1, True), done


def test_the_command_line_refuses_where_a_class_keeps_the_schedule(small):
    (small.folder / "beat_app.py").write_text(APP + 'app.conf.beat_scheduler = "umbel.beat:PersistentScheduler"\n')
    done = small.umbel("beat", "list")
    assert done.returncode == 2
    assert "which keeps the schedule itself" in done.stderr
