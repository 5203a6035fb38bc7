"""Entries that must not run beside themselves: what is known of the run before, whoever dies and whoever does not answer."""

import threading
import time
from datetime import datetime

import pytest
from tests.beat.sites import moments
from tests.beat.world import START, World, at
from tests.processes import wait_for

from umbel import Umbel
from umbel.backend import Record
from umbel.beat.entry import entry_of
from umbel.beat.overlap import PATIENCE
from umbel.beat.scheduler import after
from umbel.beat.sending import Failed, run_id
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured
from umbel.meta import build_meta, encode_meta


class Overlapping(World):
    """An entry that must not run beside itself, one that may, and results that the test writes."""

    def __init__(self, overlap="skip", every=1, **said):
        super().__init__(tick={"schedule": every, "overlap": overlap, **said}, free={"schedule": 1})
        self.one = self.scheduler()

    def ran(self, name="tick"):
        """The slots of an entry so far, in seconds since the start."""
        return [round(each - START, 6) for each in moments(self.sent(), name)]

    def last(self):
        return run_id(self.app, self.store.states(["tick"])["tick"].id)

    def ends(self, state="SUCCESS"):
        last = self.last()
        self.app.backend.store([Record(id=last, state=state, meta=encode_meta(build_meta(last, state, None)))])


def test_skip_leaves_out_what_would_run_beside_the_run_before_also_if_its_worker_was_killed(caplog):
    world = Overlapping("skip")
    world.run(5, world.one)
    assert world.ran() == [1]
    assert "tick@2026-03-28T12:00:02Z is left out, as its run before has not ended" in caplog.text
    world.ends("STARTED")
    world.run(3, world.one)
    assert world.ran() == [1]
    world.ends("FAILURE")
    world.run(1, world.one)
    assert len(world.ran()) == 2


def test_skip_forgets_a_run_whose_result_would_have_expired():
    world = Overlapping("skip")
    world.app.conf.result_expires = 10
    world.run(16, world.one)
    assert len(world.ran()) == 2


def test_queue_waits_for_the_run_before_and_leaves_nothing_out():
    world = Overlapping("queue", misfire="all")
    world.run(5, world.one)
    assert world.ran() == [1]
    for _ in range(3):
        world.ends()
        world.run(2, world.one)
    assert world.ran() == [1, 2, 3, 4]


def test_replace_revokes_the_run_before():
    world = Overlapping("replace")
    world.run(1.5, world.one)
    first = world.last()
    world.run(1, world.one)
    assert world.ran() == [1, 2]
    assert [each.id for each in world.broker.revoked_since(0).entries] == [first]
    world.ends()
    world.run(1, world.one)
    assert [each.id for each in world.broker.revoked_since(0).entries] == [first]


def test_an_entry_that_needs_a_result_backend_says_so_where_there_is_none(caplog):
    world = World(tick={"schedule": 1}, alone={"schedule": 1, "overlap": "skip"})
    world.app.conf.result_backend = None
    world.run(3, world.scheduler())
    assert "'alone' has overlap='skip': whether its run before has ended is known from its result" in caplog.text
    assert set(world.sent()) == {at(1), at(2)}


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_the_next_run_comes_when_the_one_before_has_ended_however_it_did(state):
    world = Overlapping()
    world.run(3.1, world.one)
    world.ends(state)
    world.run(1, world.one)
    assert world.ran() == [1, 3]


@pytest.mark.parametrize("state", ["RECEIVED", "STARTED", "RETRY", "PROGRESS"])
def test_a_run_that_goes_on_holds_the_next_ones_up(state):
    world = Overlapping()
    world.run(1.5, world.one)
    world.ends(state)
    world.run(5, world.one)
    assert world.ran() == [1]


def test_what_may_overlap_is_sent_while_the_results_cannot_be_read_and_the_others_follow(monkeypatch, caplog):
    world = Overlapping()
    world.run(1.5, world.one)
    world.ends()
    with monkeypatch.context() as patch:
        patch.setattr(world.app.backend, "get", unavailable)
        world.run(4, world.one)
        assert world.ran("free") == [1, 2, 3, 4, 5]
        assert world.ran() == [1]
        assert caplog.text.count("whether their runs before have ended cannot be read") == 1
    world.run(2, world.one)
    assert world.ran() == [1, 2]


def unavailable(_):
    raise BrokerUnavailable("It does not answer.")


def test_what_may_overlap_is_not_held_up_by_results_that_take_their_time(monkeypatch):
    world, released = Overlapping(), threading.Event()
    world.run(1.5, world.one)
    world.ends()
    get = world.app.backend.get
    with monkeypatch.context() as patch:
        patch.setattr(world.app.backend, "get", lambda ids: released.wait(60) and get(ids))
        began = time.monotonic()
        world.run(8, world.one)
        assert time.monotonic() - began < 4 * PATIENCE
        assert world.ran("free") == list(range(1, 10))
        released.set()
    wait_for(lambda: world.run(1, world.one) or len(world.ran()) > 1)
    assert world.ran()[1] == 2


def test_a_run_that_could_not_be_sent_holds_nothing_up():
    world = Overlapping(args=(object(),))
    world.run(2.1, world.one)
    world.entries["tick"]["args"] = ()
    world.run(3, world.scheduler("other"))
    assert world.ran() == [2]


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_run_that_a_dead_leader_has_sent_is_known_to_the_next_though_it_was_too_late_for_a_new_one(misfire, monkeypatch):
    world = Overlapping(misfire=misfire, grace=2)
    world.run(1, world.one)
    with monkeypatch.context() as patch:
        patch.setattr("umbel.beat.scheduler.after", dies_with("tick"))
        with pytest.raises(DiedError):
            world.run(1, world.one)
    assert world.ran() == [1]
    world.clock.advance(10)  # longer than the grace
    world.run(5, world.scheduler("other"))
    assert world.ran() == [1]
    world.ends()
    world.run(2, world.scheduler("other"))
    assert len(world.ran()) > 1


def test_a_run_that_a_dead_leader_was_about_to_send_is_sent_by_the_next(monkeypatch):
    world = Overlapping(misfire="skip", grace=2)
    world.run(1, world.one)
    with monkeypatch.context() as patch:
        patch.setattr("umbel.beat.scheduler.send", lambda _, runs, forms: dies_with("tick")(*runs))
        with pytest.raises(DiedError):
            world.run(1, world.one)
    world.clock.advance(10)
    world.run(5, world.scheduler("other"))
    assert world.ran() == [1]


class DiedError(BaseException):
    """The process is gone."""


def dies_with(name):
    """A part of a scheduler that goes until it comes to an entry."""

    def do(of, *_):
        if of.entry.name == name:
            raise DiedError
        return after(of, *_) if _ else Failed()

    return do


def test_the_run_for_all_that_were_missed_counts_from_when_it_was_sent():
    world = Overlapping(every=3600)
    world.run(5, world.one)
    world.clock.advance(3 * 86400)  # nobody was there
    world.run(1, world.scheduler("other"))
    assert world.ran() == [3600]
    world.clock.advance(3600)
    world.run(1, world.scheduler("other"))
    assert world.ran() == [3600]


def test_each_of_many_that_were_missed_for_long_waits_for_the_one_before():
    world = Overlapping("queue", every=86400, misfire="all")
    world.run(1, world.one)
    world.clock.advance(4 * 86400)
    world.run(5, world.scheduler("other"))
    assert world.ran() == [86400]


def test_a_run_that_has_not_begun_when_it_counts_as_ended_never_begins():
    world = Overlapping()
    world.run(1.5, world.one)
    world.sent()
    (headers,) = [each for each in world.headers if each["umbel_slot"] == at(1)]
    begins = datetime.fromisoformat(headers["expires"]).timestamp() - time.time()
    assert 86400 - 60 < begins <= 86400


def test_an_entry_that_gives_its_task_an_id_is_looked_up_by_that():
    world = Overlapping("skip", options={"task_id": "mine"})
    world.run(2.5, world.one)
    assert len(world.ran()) == 1
    world.app.backend.store([Record(id="mine", state="SUCCESS", meta=encode_meta(build_meta("mine", "SUCCESS", None)))])
    world.run(1, world.one)
    assert len(world.ran()) == 2


def test_a_result_that_cannot_be_read_holds_up_nothing(caplog):
    world = Overlapping("skip")
    world.run(1.5, world.one)
    world.app.backend.store([Record(id=world.last(), state="SUCCESS", meta=b"rubbish")])
    world.run(1, world.one)
    assert world.ran() == [1, 2]
    assert "The result of tick@2026-03-28T12:00:01Z cannot be read, and counts as ended" in caplog.text


@pytest.mark.parametrize(
    ("settings", "overlap", "text"),
    [
        ({"result_backend": "rpc://"}, "skip", "which each scheduler must be able to read. Set result_backend to a store"),
        ({"result_backend": "redis://127.0.0.1:1"}, "replace", "RabbitMQ keeps no revoked ids. Set umbel_state_url to a store"),
    ],
)
def test_an_overlap_that_the_settings_cannot_keep_is_refused(settings, overlap, text):
    with Umbel("beat", broker="amqp://127.0.0.1:1", set_as_current=False) as app:
        app.conf.update(settings)
        with pytest.raises(ImproperlyConfigured, match=text):
            entry_of("tick", {"task": "t", "schedule": 5, "overlap": overlap}, app)


def test_who_lost_its_lease_while_it_asked_for_results_sends_nothing(monkeypatch):
    world = Overlapping("skip")
    world.run(1.5, world.one)
    world.ends()
    get = world.app.backend.get

    def slow(ids):
        world.clock.advance(5)
        return get(ids)

    monkeypatch.setattr(world.app.backend, "get", slow)
    world.clock.advance(0.7)
    world.one.round()
    assert world.ran() == [1]
