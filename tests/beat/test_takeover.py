"""What a scheduler knows while another leads, and what it costs it to lead then: counts of what it reads, no seconds."""

import msgspec
import pytest
from tests.beat.world import START, World, at

from umbel.beat import timetable
from umbel.beat.scheduler import FORGETS
from umbel.beat.timetable import BEHIND, SCHEDULES, Timetable
from umbel.drivers.memory import MemorySchedules
from umbel.exceptions import BrokerUnavailable
from umbel.schedule_store import Row, State

MANY = 3000


class CountingStore(MemorySchedules):
    """Counts what is read of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.forget()

    def forget(self):
        self.rows_read, self.states_read, self.asked = 0, [], 0

    def changed_since(self, mark, *, limit=1000):
        changes = super().changed_since(mark, limit=limit)
        self.rows_read += len(changes.rows)
        return changes

    def states(self, names):
        names = list(names)
        self.asked += 1
        self.states_read += names
        return super().states(names)


class Counting(World):
    def open_store(self):
        return CountingStore(self.url, clock=self.clock)


def row(name, **said):
    return Row(name, msgspec.json.encode({"task": "t", **said}))


def nightly(count):
    return [row(f"n{n}", schedule={"kind": "crontab", "minute": str(n % 60), "hour": "3"}) for n in range(count)]


def every_second(name, **said):
    return row(name, schedule={"kind": "schedule", "run_every": 1}, **said)


@pytest.fixture
def world():
    return Counting()


def leader_and_follower(world):
    """Two schedulers, of which the second has read all that there is."""
    first, second = world.scheduler("first"), world.scheduler("second")
    world.run(5, first, second)
    assert first.leader.leads()
    return first, second


def test_who_takes_over_reads_no_row_and_plans_nothing_but_what_is_due(world, monkeypatch):
    world.store.put([*nightly(MANY), *(every_second(f"s{n}") for n in range(7))])
    _, second = leader_and_follower(world)
    second._store.forget()
    looked_at = []
    plan = timetable.plan
    monkeypatch.setattr(timetable, "plan", lambda entry, *args: looked_at.append(entry.name) or plan(entry, *args))
    monkeypatch.setattr(timetable, "read_row", None)  # is not called
    world.clock.advance(3)  # the first is dead
    second.round()
    assert second.leader.leads()
    assert second._store.rows_read == 0
    assert sorted(second._store.states_read) == [f"s{n}" for n in range(7)]
    assert set(looked_at) == {f"s{n}" for n in range(7)}
    assert at(5, "s3") in world.sent()


def test_who_follows_reads_again_only_what_has_looked_due_for_some_seconds(world):
    world.store.put([*nightly(MANY), every_second("s")])
    first, second = leader_and_follower(world)
    second._store.forget()
    world.run(30, first, second)
    assert second._store.rows_read == 0
    assert set(second._store.states_read) == {"s"}
    assert len(second._store.states_read) <= 30 / BEHIND + 1


def test_who_follows_asks_nothing_of_states_while_nothing_is_due(world):
    world.store.put(nightly(50))
    first, second = leader_and_follower(world)
    second._store.forget()
    world.run(30, first, second)
    assert second._store.asked == 0


def test_entries_with_one_schedule_share_it(world):
    world.store.put(nightly(MANY))
    table = Timetable(world.app, world.store, {})
    table.load()
    assert len({id(entry.schedule) for entry in table.entries.values()}) == 60
    assert table._schedule.cache_info().misses == 60
    assert SCHEDULES > 60


def test_an_edit_that_no_leader_saw_counts_for_the_next(world):
    world.store.put([every_second("old")])
    _, second = leader_and_follower(world)
    world.store.put([every_second("new")])
    world.store.remove(["old"])
    world.clock.advance(3)
    before = set(world.sent())
    world.run(3, second)
    assert {name.partition("@")[0] for name in set(world.sent()) - before} == {"new"}


def test_who_leads_next_begins_new_entries_when_it_saw_them_if_the_last_leader_has_not_written_so(world):
    world.store.put([row("rare", schedule={"kind": "schedule", "run_every": 30})])
    first = world.scheduler("first")
    first.leader.keep()  # it leads, and dies before it has read anything
    second = world.scheduler("second")
    world.run(1, second)
    assert world.store.states(["rare"]) == {}
    world.run(40, second)
    assert world.sent() == {at(30, "rare"): 1}
    assert world.store.states(["rare"])["rare"].runs == 1


def test_what_the_last_leader_has_written_of_a_new_entry_stays(world):
    world.store.put([row("rare", schedule={"kind": "schedule", "run_every": 30})])
    second = world.scheduler("second")
    world.scheduler("first").leader.keep()
    world.run(1, second)
    world.store.advance([State("rare", START - 10, 5, "an id")], fence=1)
    world.run(3, second)
    assert second.leader.leads()
    assert world.store.states(["rare"])["rare"] == State("rare", START - 10, 5, "an id")
    world.run(20, second)
    assert world.sent() == {at(20, "rare"): 1}


def test_who_has_not_looked_for_long_reads_all_anew(world):
    world.store.put(nightly(20))
    _, second = leader_and_follower(world)
    second._store.forget()
    world.clock.advance(FORGETS + 1)
    second.round()
    assert second._store.rows_read == 20


def test_a_store_that_does_not_answer_as_something_is_due_makes_nothing_be_forgotten(world, monkeypatch):
    world.store.put([every_second("tick")])
    _, second = leader_and_follower(world)
    world.clock.advance(3)
    with monkeypatch.context() as patch:
        patch.setattr(second._store, "states", unavailable)
        with pytest.raises(BrokerUnavailable):
            second.round()
    before = len(world.sent())
    world.run(2, second)
    assert len(world.sent()) > before


def unavailable(_):
    raise BrokerUnavailable("It does not answer.")


def test_edits_are_seen_although_more_is_due_than_can_be_sent(world):
    world.store.put([every_second("tick", misfire="all")])
    scheduler = world.scheduler()
    world.run(3, scheduler)
    publish = world.broker.publish

    def slow(items, **how):
        world.clock.advance(2)
        return publish(items, **how)

    world.broker.publish = slow
    scheduler.round()  # ends, although by now another is due
    world.store.remove(["tick"])
    scheduler.round()
    before = len(world.sent())
    for _ in range(5):
        scheduler.round()
    assert len(world.sent()) == before
