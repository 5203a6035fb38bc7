"""Many schedulers of one app: each slot once, whoever leads."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.beat.world import START, World, at

from umbel import Umbel
from umbel.beat.editing import NoSuchEntryError, Schedule
from umbel.beat.scheduler import LeaseScheduler
from umbel.beat.stores import open_stores
from umbel.exceptions import BrokerUnavailable
from umbel.ids import uuid
from umbel.schedule_store import Row, State
from umbel.schedules import BaseSchedule, schedstate
from umbel.wire.message import decode


def test_one_scheduler_sends_each_slot_in_its_time():
    world = World(tick={"schedule": 1}, slow={"schedule": 10})
    world.run(20.5, world.scheduler())
    assert world.sent() == Counter([at(n) for n in range(1, 21)] + [at(10, "slow"), at(20, "slow")])


def test_of_five_schedulers_one_sends():
    world = World(tick={"schedule": 1})
    world.run(30.5, *[world.scheduler(f"s{n}") for n in range(5)])
    assert world.sent() == Counter(at(n) for n in range(1, 31))


@pytest.mark.parametrize("seed", range(3))
def test_a_day_of_a_schedule_of_one_second_runs_each_slot_once_though_the_leader_is_killed_every_five_seconds(seed):
    world, chance = World(tick={"schedule": 1, "misfire": "all"}), random.Random(seed)
    schedulers = [world.scheduler(f"s{n}") for n in range(5)]
    hours = 24 if seed == 0 else 1
    for second in range(hours * 3600):
        for each in schedulers:
            each.round()
        if second % 5 == 4:
            killed = next((n for n, each in enumerate(schedulers) if each.leader.leads()), None)
            if killed is not None:
                schedulers[killed] = world.scheduler(f"s{second}")
            chance.shuffle(schedulers)
        world.clock.advance(1)
        if second % 600 == 0:
            world.sent()
    world.run(5, *schedulers)
    seen = world.sent()
    assert set(seen.values()) == {1}
    assert {at(n) for n in range(1, hours * 3600 + 1)} <= set(seen)
    assert len(seen) <= hours * 3600 + 5


def test_a_leader_that_dies_between_sending_and_writing_so_costs_no_second_run():
    world = World(tick={"schedule": 10})
    first = world.scheduler("first")
    world.run(5, first)
    first._write = die
    with pytest.raises(ZeroDivisionError):
        world.run(10, first)
    assert world.sent() == Counter([at(10)])
    world.run(12, world.scheduler("second"))
    assert world.sent() == Counter([at(10), at(20)])


def die(states):
    if states:  # of a new term there are none
        raise ZeroDivisionError("the process is gone")
    return True


class EveryTen(BaseSchedule):
    """As users of Celery write them: it says what is due when it is asked."""

    def is_due(self, last_run_at):
        left = 10 - (self.now() - last_run_at).total_seconds()
        return schedstate(left <= 0, max(left, 0.1))

    def remaining_estimate(self, last_run_at):
        return timedelta(seconds=10)


def test_a_class_that_says_what_is_due_costs_no_second_run_either():
    world = World()
    when = EveryTen(nowfun=lambda: datetime.fromtimestamp(world.clock.now(), UTC))
    world.entries["tick"] = {"task": "tasks.tick", "schedule": when}
    first = world.scheduler("first")
    world.run(5, first)
    first._write = die
    with pytest.raises(ZeroDivisionError):
        world.run(10, first)
    assert world.sent() == Counter([at(0)])  # the run that follows what was handled up to then
    world.run(5, world.scheduler("second"))
    assert world.sent() == Counter([at(0)])
    world.run(10, world.scheduler("third"))
    assert len(world.sent()) == 2
    assert set(world.seen.values()) == {1}


def test_who_led_before_writes_nothing_from_when_another_leads():
    world = World(rare={"schedule": 3600})
    first, second = world.scheduler("first"), world.scheduler("second")
    world.run(2, first)
    world.clock.advance(5)
    second.round()
    assert second.leader.leads()
    assert not first._store.advance([State("rare", START + 3600, 1, at(3600, "rare"))], fence=first._fence)


def test_a_leader_goes_on_though_the_store_knows_of_later_terms_than_its_leases_do():
    world = World(tick={"schedule": 1})
    scheduler = world.scheduler()
    world.run(3, scheduler)
    world.store.advance([], fence=scheduler._fence + 4)  # as where one of the two was restored from a backup
    world.run(10, scheduler)
    assert at(12) in world.sent()
    assert set(world.seen.values()) == {1}


@pytest.mark.postgres
def test_an_entry_that_was_edited_before_any_scheduler_has_run_holds_nothing_up(postgres_database):
    with Umbel("edited", broker=postgres_database, set_as_current=False) as app:
        leases, store = open_stores(app)
        entries = {"nightly": {"task": "report", "schedule": 60}}
        Schedule(app, store, entries).pause("nightly")
        scheduler = LeaseScheduler(app, leases=leases, store=store, configured=entries, holder="one")
        scheduler.round()
        assert scheduler.leader.leads()
        assert store.states(["nightly"])
        scheduler.close()
        leases.close()
        store.close()


def test_a_leader_that_was_stopped_for_long_sends_nothing_when_it_goes_on():
    world = World(tick={"schedule": 1})
    stopped, other = world.scheduler("stopped"), world.scheduler("other")
    world.run(3, stopped)
    world.run(10, other)
    before = Counter(world.sent())
    stopped.round()
    assert world.sent() == before
    assert not stopped.leader.leads()


def test_who_is_told_to_stop_lets_another_lead_at_once():
    world = World(tick={"schedule": 1})
    first, second = world.scheduler("first"), world.scheduler("second")
    world.run(2.1, first, second)
    first.close()
    second.round()
    assert second.leader.leads()


def test_a_broker_that_does_not_answer_loses_no_slot_and_doubles_none(monkeypatch):
    world = World(tick={"schedule": 1, "misfire": "all"})
    scheduler = world.scheduler()
    world.run(3.1, scheduler)
    publish = world.broker.publish

    def fails_half_way(items, **how):
        publish(items[: len(items) // 2 + 1], **how)
        raise BrokerUnavailable("It does not answer.", maybe_sent=True)

    monkeypatch.setattr(world.broker, "publish", fails_half_way)
    world.clock.advance(5)
    with pytest.raises(BrokerUnavailable):
        scheduler.round()
    monkeypatch.setattr(world.broker, "publish", publish)
    world.run(3, scheduler)
    seen = world.sent()
    assert set(seen.values()) == {1}
    assert {at(n) for n in range(1, 11)} <= set(seen)


def test_a_clock_that_steps_back_fires_nothing_twice():
    world = World(tick={"schedule": 1})
    scheduler = world.scheduler()
    world.run(10, scheduler)
    world.clock.step(-7)
    world.run(20, scheduler)
    assert set(world.sent().values()) == {1}
    assert at(20) in world.sent()


def test_an_edit_takes_effect_within_two_seconds_and_a_removal_does():
    world = World(tick={"schedule": 3600})
    scheduler = world.scheduler()
    world.run(3, scheduler)
    world.store.put([Row("tick", msgspec.json.encode({"schedule": {"kind": "schedule", "run_every": 1}})),
                     Row("new", msgspec.json.encode({"task": "tasks.new", "schedule": {"kind": "schedule", "run_every": 1}}))])  # fmt: skip
    world.run(4, scheduler)
    seen = set(world.sent())
    assert at(5) in seen
    assert any(each.startswith("new@") for each in seen)
    world.store.remove(["new", "tick"])
    world.run(2, scheduler)
    before = len(world.sent())
    world.run(10, scheduler)
    assert len(world.sent()) == before


def test_an_entry_that_cannot_be_used_is_told_and_holds_up_no_other(caplog):
    world = World(tick={"schedule": 1}, bad={"schedule": "never"}, unsendable={"schedule": 1, "args": (object(),)})
    world.run(4, world.scheduler())
    assert at(3) in world.sent()
    assert "The periodic task 'bad' cannot be used and is not sent" in caplog.text
    assert "Message Error" in caplog.text


def test_a_new_leader_goes_on_where_the_last_one_was():
    world = World(rare={"schedule": 3600})
    world.run(5, world.scheduler("first"))
    world.clock.advance(3590)
    world.run(10, world.scheduler("second"))
    assert world.sent() == Counter([at(3600, "rare")])


def test_what_is_paused_is_not_sent_and_goes_on_from_when_it_is_resumed():
    world = World(tick={"schedule": 1})
    scheduler = world.scheduler()
    world.run(3, scheduler)
    schedule = Schedule(world.app, world.store, world.entries)
    schedule.pause("tick")
    world.run(6, scheduler)
    paused = Counter(world.sent())
    assert len(paused) <= 5
    schedule.resume("tick")
    world.run(4, scheduler)
    new = sorted(world.sent() - paused)
    assert len(new) >= 2
    assert new[0] >= at(10)
    with pytest.raises(NoSuchEntryError, match="Did you mean 'tick'"):
        schedule.pause("tock")


def test_an_entry_is_sent_by_hand_beside_its_schedule():
    world = World(nightly={"schedule": 86400, "args": [1], "options": {"queue": "night"}})
    schedule = Schedule(world.app, world.store, world.entries)
    sent = schedule.run("nightly")
    assert world.broker.depth(["night"])["night"].ready == 1
    world.broker.join("r", ["night"], lease=60)
    (message,) = world.broker.fetch("night", 1, owner="r", seq=1)
    assert decode(message.raw).headers["id"] == sent


def test_two_apps_on_one_store_each_have_a_leader_and_their_own_entries():
    url, ids = f"memory://{uuid()}", []
    for name in ("shop", "blog"):
        with Umbel(name, broker=url, set_as_current=False) as app:
            leases, store = open_stores(app)
            entries = {"nightly": {"task": "report", "schedule": 60, "last_run_at": START}}
            scheduler = LeaseScheduler(app, leases=leases, store=store, configured=entries, holder=name)
            scheduler.round()
            assert scheduler.leader.leads()
            assert scheduler._table.states["nightly"].runs == 1
            app.broker.join("reader", ["celery"], lease=60)
            ids += [decode(each.raw).headers["id"] for each in app.broker.fetch("celery", 10, owner="reader", seq=len(ids) + 1)]
    assert len(set(ids)) == 2


def test_a_hundred_thousand_entries_are_read_while_the_lease_is_kept():
    world = World()
    world.store.put(
        Row(f"e{n}", msgspec.json.encode({"task": "t", "schedule": {"kind": "crontab", "minute": str(n % 60), "hour": "3"}}))
        for n in range(20_000)
    )
    scheduler = world.scheduler()
    advance_in(world, scheduler)
    scheduler.round()
    assert scheduler.leader.leads()
    assert len(scheduler._table.entries) == 20_000


def advance_in(world, scheduler):
    """Let half a second pass with each page that is read."""
    read = scheduler._store.changed_since

    def slow(mark, *, limit):
        world.clock.advance(0.5)
        return read(mark, limit=limit)

    scheduler._store.changed_since = slow
