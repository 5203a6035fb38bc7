"""Entries that must not run beside themselves, with real schedulers and workers: they do not, whoever is killed."""

import contextlib
import itertools
import json
import os
import re
import signal
import time
from datetime import datetime

import pytest
from tests import servers
from tests.beat.sites import APP, Site, moments
from tests.faults.conftest import running_redis
from tests.processes import wait_for

HOLDING = """
import json, time
from pathlib import Path

app.conf.result_backend = os.environ["RESULTS"]
app.conf.result_backend_transport_options = app.conf.broker_transport_options
app.conf.result_expires = float(os.environ.get("EXPIRES", 86400))
app.conf.worker_lease, app.conf.worker_lease_renewal = 2.0, 0.5
app.conf.beat_schedule = {
    "hold": {"task": "hold", "schedule": 1.0, "overlap": os.environ["OVERLAP"], "misfire": os.environ.get("MISFIRE", "once")},
    "free": {"task": "free", "schedule": 1.0, "misfire": "all", "options": {"queue": "free"}},
}
HERE = Path(__file__).parent


def note(word, request):
    with (HERE / "ledger").open("a") as ledger:
        ledger.write(json.dumps([time.monotonic(), word, request.headers["umbel_slot"], os.getpid(), request.id]) + "\\n")


@app.task(name="hold", bind=True)
def hold(self):
    note("begins", self.request)
    while not (HERE / "released").exists():  # the test says when
        time.sleep(0.02)
    note("ends", self.request)
    if (HERE / "released").read_text() == "fail":
        raise ZeroDivisionError
"""


class Holding(Site):
    """A site with an entry whose runs go on until they are released, and a ledger of what they did; and one that may overlap."""

    def __init__(self, folder, store, *, overlap, results=None, **env):
        super().__init__(folder, *store, app=APP + HOLDING)
        self.env |= {"OVERLAP": overlap, "RESULTS": results or store[0], **env}
        self.app.conf.result_backend = self.env["RESULTS"]
        self.app.conf.result_backend_transport_options = self.app.conf.broker_transport_options
        self.ledger, self.killed = folder / "ledger", {}

    @contextlib.contextmanager
    def worker(self, name):
        with self.start("worker", "-Q", "periodic", "-n", f"{name}@%h", "-c", "2") as worker:
            yield worker

    def release(self, how="well"):
        (self.folder / "released").write_text(how)

    def lines(self):
        return [tuple(json.loads(line)) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def begun(self):
        return [slot for _, word, slot, _, _ in self.lines() if word == "begins"]

    def waits_to_begin(self, count):
        return wait_for(lambda: len(self.begun()) >= count and self.begun(), 90, lambda: f"{self.lines()}\n{self.logs()}")

    def kill(self, worker):
        """Kill a worker while it runs something, and wait until that is dead, too."""
        pid = self.lines()[-1][3]
        worker.kill()
        wait_for(lambda: is_gone(pid), 20)
        self.killed[pid] = time.monotonic()

    def never_overlaps(self):
        """No run has begun before the one before had ended."""
        alive = {}
        for at, word, slot, pid, _ in self.lines():
            alive = {other: held for other, held in alive.items() if self.killed.get(other, at) >= at}
            if word == "begins":
                assert not alive, f"{slot} begins in {pid} beside {alive}: {self.lines()}"
                alive[pid] = slot
            else:
                del alive[pid]


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def times_sent(beat, name):
    return [datetime.fromisoformat(at.replace(",", ".")) for at in re.findall(rf"\[(\S+ \S+): .*Sending due task {name} ", beat.log())]


ALL = [("skip", "once", "well"), ("queue", "all", "fail")]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("overlap", "misfire", "how"), ALL)
def test_an_entry_never_runs_beside_itself_though_its_worker_is_killed_in_the_middle(store, tmp_path, overlap, misfire, how):
    site = Holding(tmp_path, store, overlap=overlap, MISFIRE=misfire)
    with site.beat() as beat:
        with site.worker("first") as first:
            (slot,) = site.waits_to_begin(1)
            site.kill(first)
        with site.worker("second"):
            site.waits_to_begin(2)
            sent = len(times_sent(beat, "free"))
            wait_for(lambda: len(times_sent(beat, "free")) > sent + 2, 30, beat.tail)
            assert site.begun() == [slot, slot]
            site.release(how)
            begun = site.waits_to_begin(5)
    site.app.close()
    site.never_overlaps()
    assert len(set(begun)) == len(begun) - 1
    if overlap == "queue":
        assert moments(begun[1:], "hold") == [moments([slot], "hold")[0] + n for n in range(len(begun) - 1)]
    else:
        assert moments(begun[2:3], "hold")[0] > moments([slot], "hold")[0] + 2
        assert "is left out, as its run before has not ended" in beat.log()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_replace_ends_the_run_before(store, tmp_path):
    site = Holding(tmp_path, store, overlap="replace")
    with site.beat(), site.worker("one"):
        begun = site.waits_to_begin(4)
        ids = {slot: task for _, _, slot, _, task in site.lines()}
        states = [site.app.AsyncResult(ids[slot]) for slot in begun[:3]]
        wait_for(lambda: [each.state for each in states] == ["REVOKED"] * 3, 30, site.logs)
        pids = [pid for _, _, _, pid, _ in site.lines()][:3]
        wait_for(lambda: all(is_gone(pid) for pid in pids), 30, site.logs)
    assert len(set(begun)) == len(begun)
    site.app.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_while_the_result_backend_is_away_what_may_overlap_goes_on_and_what_must_not_follows(store, tmp_path, how):
    if servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs a redis-server to kill: apt-get install redis-server")
    with running_redis(tmp_path / "results") as results:
        site = Holding(tmp_path, store, overlap="skip", results=results.url)
        site.release()
        with site.beat() as beat, site.worker("one"):
            site.waits_to_begin(2)
            results.send(signal.SIGSTOP) if how == "stopped" else results.kill()
            beat.waits_to_print("Entries that must not overlap wait, as whether", 30)
            sent = len(times_sent(beat, "free"))
            wait_for(lambda: len(times_sent(beat, "free")) > sent + 8, 40, beat.tail)
            results.send(signal.SIGCONT) if how == "stopped" else results.start()
            beat.waits_to_print("The results of runs can be read again", 60)
            site.waits_to_begin(len(site.begun()) + 2)
    assert beat.log().count(" leads (term") == 1
    assert max((b - a).total_seconds() for a, b in itertools.pairwise(times_sent(beat, "free"))) < 3, beat.tail()
    site.never_overlaps()
    site.app.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_run_that_was_lost_holds_the_entry_up_until_its_result_would_have_expired(store, tmp_path):
    site = Holding(tmp_path, store, overlap="skip", EXPIRES="4")
    with site.beat():
        site.waits_for(1)  # and takes it away
        site.waits_for(2)
    first, second = moments(site.slots(), "hold")
    assert first + 4 <= second <= first + 7
    site.app.close()
