"""`umbel beat` and `umbel worker -B` as programs: each slot once, whoever is killed, and what the command line says."""

import itertools
import json
import os
import re
import signal
from collections import Counter

import pytest
from tests import servers
from tests.beat.sites import APP, Site, all_once_without_gap, leads, moments
from tests.faults.conftest import running_redis
from tests.processes import wait_for
from tests.rabbitmq import delete_queues

from umbel import Umbel
from umbel.beat.entry import Entry
from umbel.beat.sending import Run, send
from umbel.schedules import schedule


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


@pytest.mark.timeout(400)
def test_of_three_schedulers_one_sends_each_second_once_though_the_leader_is_killed_and_their_clocks_are_wrong(site):
    clocks = itertools.cycle([site.clock(skew if site.has_a_clock else 0) for skew in (-2, 0, 2)])
    running = [site.beat(clock=next(clocks)) for _ in range(3)]
    try:
        for kills in range(1, 5):
            leader = wait_for(lambda: next(filter(leads, running), None), 60, site.logs)
            site.waits_for(3 * kills)
            leader.kill()
            running.remove(leader)
            running.append(site.beat(clock=next(clocks)))
        site.waits_for(15)
        for each in running:
            each.send(signal.SIGTERM)
            assert each.exit_code() == 0, each.tail()
        all_once_without_gap(site.slots())
    finally:
        for each in running:
            each.__exit__()


@pytest.mark.timeout(300)
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


@pytest.mark.timeout(300)
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


TOLD = ("does not lead any more", "another scheduler leads, and has written since")


@pytest.mark.timeout(300)
def test_a_leader_that_was_stopped_for_longer_than_its_lease_leads_no_more(small):
    with small.beat() as program:
        small.waits_for(2)
        program.send(signal.SIGSTOP)  # for longer than the lease
        with small.beat() as other:
            other.waits_to_print(" leads (term")
            small.waits_for(4)
            program.send(signal.SIGCONT)
            wait_for(lambda: any(text in program.log() for text in TOLD), 80, program.tail)  # the second, if it was stopped as it sent
            small.waits_for(6)
    all_once_without_gap(small.slots())


@pytest.mark.timeout(400)
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


RUNS = """

@app.task(name="tasks.tick", bind=True)
def tick(self):
    with open("ran", "a") as ledger:
        ledger.write(self.request.headers["umbel_slot"] + "\\n")
"""
DIES = """
from umbel.beat import scheduler

if os.environ.get("DIES"):  # between sending and writing so, the third time
    write, sent = scheduler.LeaseScheduler._write, []

    def dies(self, states):
        sent.extend(each for each in states if each.id)
        if len(sent) >= 3:
            os.kill(os.getpid(), 9)
        return write(self, states)

    scheduler.LeaseScheduler._write = dies
"""
LEADS = """
from umbel.beat import scheduler

scheduler.name_of = lambda app: f"a lease of {os.getpid()}"  # each leads
"""


class Rabbit(Site):
    """A project on RabbitMQ, with workers."""

    def __init__(self, folder, url, code):
        super().__init__(folder, url)
        self.app.close()
        self.url = url
        self.env["BEAT_STATE"] = f"sqlite:///{folder}/state.sqlite3"
        (folder / "beat_app.py").write_text(APP + RUNS + code)

    def worker(self):
        return self.start("worker", "-Q", "periodic", "-P", "solo")

    def dying(self):
        """A scheduler that is killed when it has sent a run, and has not yet written so."""
        self.env["DIES"] = "1"
        made = self.beat()
        del self.env["DIES"]
        return made

    def ran(self):
        path = self.folder / "ran"
        return Counter(path.read_text().splitlines() if path.exists() else ())

    def copies(self):
        """The names of the runs of which a second message was left out."""
        return Counter(re.findall(r"Another copy of tasks.tick\[.*?\] \((tick@.*?)\) has started", self.logs_whole()))

    def logs_whole(self):
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))


@pytest.fixture
def rabbit(amqp_url, tmp_path):
    yield lambda code: Rabbit(tmp_path, amqp_url, code)
    delete_queues(amqp_url, "periodic")


@pytest.mark.amqp
@pytest.mark.timeout(400)
def test_on_rabbitmq_a_run_starts_once_though_its_scheduler_is_killed_between_sending_and_writing(rabbit):
    site = rabbit(DIES)
    with site.worker() as worker:
        worker.waits_to_print(" ready.")
        with site.dying() as first:
            wait_for(lambda: first.process.poll() is not None, 60, site.logs)
        with site.beat():
            wait_for(lambda: len(site.ran()) >= 7 and site.copies(), 60, site.logs)
    all_once_without_gap(site.ran())
    assert set(site.copies().values()) == {1}


TAKES_ITS_WORKER_ALONG = """
@app.task(name="tasks.tick", bind=True)
def tick(self):
    with open("ran", "a") as ledger:
        ledger.write(self.request.headers["umbel_copy"] + "\\n")
    if not os.path.exists("died"):
        open("died", "x").close()
        os.kill(os.getpid(), 9)
"""


@pytest.mark.amqp
@pytest.mark.timeout(400)
def test_on_rabbitmq_a_run_whose_worker_is_killed_runs_again_and_its_other_copy_does_not(rabbit):
    site = rabbit("")
    (site.folder / "beat_app.py").write_text(APP + TAKES_ITS_WORKER_ALONG)
    app = Umbel("beat_app", broker=site.url, set_as_current=False)
    app.conf.task_default_queue = "periodic"
    for _ in range(2):
        send(app, [Run(Entry(name="tick", task="tasks.tick", schedule=schedule(60)), 1774753200.0)])
    app.close()
    with site.worker() as first:
        wait_for(lambda: first.process.poll() is not None, 60, site.logs)
    with site.worker():
        wait_for(lambda: sum(site.ran().values()) >= 2 and site.copies(), 60, site.logs)
    assert list(site.ran().values()) == [2]
    assert site.copies() == {"tick@2026-03-29T03:00:00Z": 1}


@pytest.mark.amqp
@pytest.mark.timeout(400)
def test_on_rabbitmq_a_run_starts_once_though_two_schedulers_lead_and_a_worker_is_killed(rabbit):
    site = rabbit(LEADS)
    with site.beat() as first, site.beat() as second:
        for each in (first, second):
            each.waits_to_print(" leads (term")
        with site.worker():
            wait_for(lambda: len(site.copies()) >= 3, 60, site.logs)
        with site.worker():
            wait_for(lambda: len(site.copies()) >= 6, 60, site.logs)
    found = moments(site.ran())
    assert found == [found[0] + n for n in range(len(found))]
    # The worker that was killed may have been about to acknowledge one: that runs again.
    assert sum(site.ran().values()) <= len(found) + 1


@pytest.mark.timeout(300)
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


@pytest.mark.timeout(300)
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


@pytest.mark.timeout(300)
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
