"""Where the broker keeps no once-keys, a run that two schedulers send starts once: each message names a copy, and workers start one."""

import contextlib
import logging
import random
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.beat.world import World, at
from tests.processes import wait_for
from tests.rabbitmq import delete_queues

from umbel import Umbel
from umbel.beat.entry import Entry
from umbel.beat.sending import Run, run_id, send
from umbel.contrib.testing.worker import start_worker
from umbel.drivers.memory import MemoryBackend, MemoryBroker, MemoryLeases
from umbel.exceptions import BackendUnavailable, BrokerUnavailable
from umbel.schedules import schedule
from umbel.wire.message import decode

SLOT = datetime(2026, 3, 29, 2, 30, tzinfo=UTC).timestamp()
PATIENCE = 20


class Forgetful(MemoryBroker):
    """A broker that keeps no once-keys, as RabbitMQ keeps none."""

    features = replace(MemoryBroker.features, once=False)


class Site:
    """An app, what its tasks did, and two schedulers that know nothing of each other."""

    def __init__(self, broker, **settings):
        self.app = app = Umbel("copies", set_as_current=False)
        app.conf.update(broker_url=broker, task_default_queue=f"copies-{uuid.uuid4().hex[:8]}", **settings)
        self.did = []

        @app.task(name="note", bind=True)
        def note(task, *args):
            self.did.append(("note", *args))
            return "noted"

        @app.task(name="retries", bind=True, max_retries=3)
        def retries(task):
            self.did.append(("retries", task.request.retries))
            if task.request.retries < 2:
                raise task.retry(countdown=0)

        @app.task(name="replaces", bind=True)
        def replaces(task):
            self.did.append(("replaces",))
            raise task.replace(note.si("instead"))

    def sends(self, task, slot=SLOT, **said):
        """Let two schedulers send one run."""
        entry = Entry(name="tick", task=task, schedule=schedule(60), **said)
        for _ in range(2):
            send(self.app, [Run(entry, slot)])
        return run_id(self.app, f"tick@{datetime.fromtimestamp(slot, UTC):%Y-%m-%dT%H:%M:%S}Z", entry.options)

    def works(self, caplog, *, dropped, ran=1):
        """Run a worker until its tasks did so much and so many copies were acknowledged without a start, and nothing waits."""
        caplog.set_level(logging.INFO, "celery.worker")

        def told():
            return [each.getMessage() for each in caplog.records if "Another copy of" in each.getMessage()]

        def done():
            return len(told()) >= dropped and len(self.did) >= ran and self.is_empty()

        with start_worker(self.app, pool="threads", concurrency=2, perform_ping_check=False):
            wait_for(done, PATIENCE, lambda: f"{told()}, {self.did}")
        return told()

    def is_empty(self):
        depth = self.app.broker.depth([self.app.conf.task_default_queue])
        return not any((each.ready or 0) + (each.claimed or 0) + (each.delayed or 0) for each in depth.values())

    def close(self):
        self.app.close()


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.amqp)])
def site(request):
    if request.param == "amqp":
        url = request.getfixturevalue("amqp_url")
        made = Site(url, result_backend=f"memory://{uuid.uuid4()}")
        yield made
        made.close()
        delete_queues(url, made.app.conf.task_default_queue)
        return
    made = forgetful()
    yield made
    made.close()


def forgetful(**settings):
    url = f"memory://{uuid.uuid4()}"
    made = Site(url, **{"result_backend": url, **settings})
    made.app._broker.get()
    made.app._broker.wrap(lambda _: Forgetful(url))
    return made


@pytest.mark.parametrize("late", [True, False])
def test_of_two_messages_of_a_run_one_starts_and_the_other_is_acknowledged_and_told(site, caplog, late):
    site.app.tasks["note"].acks_late = late
    task_id = site.sends("note", args=(1,))
    (told,) = site.works(caplog, dropped=1)
    assert site.did == [("note", 1)]
    assert told == f"Another copy of note[{task_id}] (tick@2026-03-29T02:30:00Z) has started: this one is acknowledged."
    result = site.app.AsyncResult(task_id)
    assert (result.state, result.result) == ("SUCCESS", "noted")


def test_a_retry_is_no_copy_and_neither_is_what_replaces_a_task(site, caplog):
    site.sends("retries")
    site.sends("replaces", slot=SLOT + 60)
    site.works(caplog, dropped=2, ran=5)
    wait = [("retries", 0), ("retries", 1), ("retries", 2), ("replaces",), ("note", "instead")]
    assert Counter(site.did) == Counter(wait)


def test_a_run_whose_result_is_ignored_and_cannot_be_written_runs_once(site, caplog):
    site.app.tasks["note"].run = lambda *args: site.did.append(args) or object()
    site.sends("note", args=(1,), options={"ignore_result": True})
    site.works(caplog, dropped=1)
    assert site.did == [(1,)]
    assert "raised unexpected" not in caplog.text


def test_of_two_messages_that_have_expired_one_says_so(site, caplog):
    task_id = site.sends("note", args=(1,), options={"expires": 0.001})
    site.works(caplog, dropped=1, ran=0)
    assert site.app.AsyncResult(task_id).state == "REVOKED"
    assert site.did == []


def test_runs_of_an_entry_that_gives_a_task_id_are_no_copies_of_each_other(site, caplog):
    for number in range(3):
        assert site.sends("note", SLOT + 60 * number, args=(number,), options={"task_id": "mine"}) == "mine"
    site.works(caplog, dropped=3, ran=3)
    assert Counter(site.did) == Counter(("note", number) for number in range(3))


@pytest.mark.parametrize("how", ["link", "chain", "embed"])
def test_what_follows_a_run_follows_it_once(site, caplog, how):
    if how == "embed":
        site.app.conf.task_canvas_embed = True
    behind = site.app.signature("note", ("behind",), immutable=True)
    site.sends("note", args=("first",), options={"chain": [behind]} if how == "chain" else {"link": behind})
    site.works(caplog, dropped=1, ran=2)
    assert site.did == [("note", "first"), ("note", "behind")]


def test_what_follows_a_run_follows_it_once_also_where_the_broker_keeps_keys(caplog):
    url = f"memory://{uuid.uuid4()}"
    site = Site(url, result_backend=url)
    site.sends("note", args=("first",), options={"link": site.app.signature("note", ("behind",), immutable=True)})
    site.works(caplog, dropped=1, ran=2)
    assert site.did == [("note", "first"), ("note", "behind")]
    site.close()


def test_what_follows_a_run_of_a_task_that_the_scheduler_does_not_know_follows_it_too(site, caplog):
    with Umbel("copies", set_as_current=False) as app:
        app.conf.update({name: site.app.conf[name] for name in ("broker_url", "result_backend", "task_default_queue")})
        behind = app.signature("note", ("behind",), immutable=True)
        send(app, [Run(Entry(name="tick", task="note", schedule=schedule(60), args=("first",), options={"link": behind}), SLOT)])
    site.works(caplog, dropped=0, ran=2)
    assert site.did == [("note", "first"), ("note", "behind")]


def test_without_a_result_backend_the_store_beside_the_broker_says_which_copy_has_started(caplog):
    site = forgetful(result_backend="disabled://", umbel_state_url=f"memory://{uuid.uuid4()}")
    site.sends("note", args=(1,))
    site.works(caplog, dropped=1)
    assert site.did == [("note", 1)]
    site.close()


@pytest.mark.amqp
def test_on_rabbitmq_with_results_as_messages_the_state_store_says_which_copy_has_started(amqp_url, caplog, tmp_path):
    site = Site(amqp_url, result_backend="rpc://", umbel_state_url=f"sqlite:///{tmp_path}/state.sqlite3")
    site.sends("note", args=(1,))
    site.works(caplog, dropped=1)
    assert site.did == [("note", 1)]
    site.close()
    delete_queues(amqp_url, site.app.conf.task_default_queue)


@pytest.mark.amqp
def test_on_rabbitmq_without_any_store_each_message_runs(amqp_url, caplog):
    site = Site(amqp_url)
    site.sends("note", args=(1,))
    site.works(caplog, dropped=0, ran=2)
    assert site.did == [("note", 1)] * 2
    site.close()
    delete_queues(amqp_url, site.app.conf.task_default_queue)


def test_while_the_store_does_not_answer_a_run_waits_and_is_neither_lost_nor_doubled(caplog, monkeypatch):
    site, asked = forgetful(), []
    bind = MemoryBackend.bind

    def away(self, copies, *, expires):
        asked.append(copies)
        if len(asked) < 3:
            raise BackendUnavailable("It does not answer.")
        return bind(self, copies, expires=expires)

    monkeypatch.setattr(MemoryBackend, "bind", away)
    site.sends("note", args=(1,))
    site.works(caplog, dropped=1)
    assert len(asked) >= 3
    assert site.did == [("note", 1)]
    site.close()


# --- schedulers on a clock of their own


class Refusing(Forgetful):
    """One that refuses a queue, and has by then taken what came before."""

    def publish(self, items, **how):
        good = [each for each in items if each.queue != "refused"]
        super().publish(good, **how)
        if len(good) < len(items):
            raise BrokerUnavailable("It refused the queue.", maybe_sent=True, refused=True)


class Unkeyed(World):
    """Schedulers on a broker without keys; what they send is read, and bound as workers bind it."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.broker = Forgetful(self.url, clock=self.clock)
        self.backend, self.messages = MemoryBackend(f"memory://{uuid.uuid4()}", clock=self.clock), Counter()
        self.app._broker.wrap(lambda _: self.broker)

    def candidate(self, holder, leases):
        made = self.scheduler(holder)
        made.leader._leases = MemoryLeases(leases, clock=self.clock)
        return made

    def sent(self):
        """The names of the runs that have started, each as often as it did."""
        self.broker.join("reader", ["celery"], lease=1e9)
        while True:
            self._seq = getattr(self, "_seq", 0) + 1
            found = self.broker.fetch("celery", 1000, owner="reader", seq=self._seq)
            if not found:
                return self.seen
            headers = [decode(each.raw).headers for each in found]
            self.messages.update(each["umbel_slot"] for each in headers)
            flags = self.backend.bind([tuple(each["umbel_copy"].split(" ")) for each in headers], expires=604800)
            self.seen.update(each["umbel_slot"] for each, first in zip(headers, flags, strict=True) if first)


def killed(states):
    if states:  # of a new term there are none
        raise ZeroDivisionError("the process is gone")
    return True


def test_an_entry_that_the_broker_refuses_holds_up_no_other_and_doubles_none(caplog):
    world = Unkeyed(tick={"schedule": 5}, bad={"schedule": 5, "options": {"queue": "refused"}}, tock={"schedule": 5})
    world.broker = Refusing(world.url, clock=world.clock)
    world.app._broker.wrap(lambda _: world.broker)
    world.run(30.5, world.scheduler())
    assert {at(n, name) for n in range(5, 31, 5) for name in ("tick", "tock")} == set(world.sent())
    assert set(world.seen.values()) == {1}
    told = [
        each
        for each in caplog.messages
        if each == "beat: The periodic task 'bad' is refused, and is tried again in 10 s: It refused the queue."
    ]
    assert len(told) == 3
    world.broker = Forgetful(world.url, clock=world.clock)
    world.app._broker.wrap(lambda _: world.broker)
    world.broker.join("other", ["refused"], lease=1e9)
    world.run(10, world.scheduler("next"))
    assert world.broker.fetch("refused", 10, owner="other", seq=1)


def test_while_the_store_takes_no_writes_what_was_sent_is_not_sent_again_and_again(monkeypatch):
    world = Unkeyed(tick={"schedule": 5, "misfire": "all"})
    scheduler = world.scheduler()
    world.run(6, scheduler)

    def full(*_, **__):
        raise BrokerUnavailable("It is full.")

    with monkeypatch.context() as patch:
        patch.setattr(scheduler._store, "advance", full)
        for _ in range(12):
            with contextlib.suppress(BrokerUnavailable):
                scheduler.round()
            world.clock.advance(1)
    world.run(12, scheduler)
    assert world.sent() == Counter(at(n) for n in range(5, 30, 5))
    assert world.messages == world.seen


@pytest.mark.amqp
def test_an_entry_that_rabbitmq_refuses_holds_up_no_other(amqp_url):
    site = Site(amqp_url)
    runs = [Run(Entry(name=name, task="note", schedule=schedule(60), options={"queue": queue} if queue else {}), SLOT)
            for name, queue in (("one", None), ("bad", "amq.mine"), ("two", None))]  # fmt: skip
    assert set(send(site.app, runs).refused) == {"bad"}
    assert site.app.broker.depth([site.app.conf.task_default_queue])[site.app.conf.task_default_queue].ready == 2
    site.close()
    delete_queues(amqp_url, site.app.conf.task_default_queue)


def test_a_broker_that_refuses_all_is_away_and_not_at_fault():
    world = Unkeyed(**{name: {"schedule": 5, "options": {"queue": "refused"}} for name in ("one", "two")})
    world.broker = Refusing(world.url, clock=world.clock)
    world.app._broker.wrap(lambda _: world.broker)
    with pytest.raises(BrokerUnavailable):
        world.run(5.5, world.scheduler())


@pytest.mark.parametrize("seed", range(2))
def test_each_slot_of_half_an_hour_starts_once_though_leaders_die_between_sending_and_writing(seed):
    world, chance = Unkeyed(tick={"schedule": 1, "misfire": "all"}), random.Random(seed)
    schedulers = [world.scheduler(f"s{n}") for n in range(3)]
    for second in range(1800):
        for n, each in enumerate(schedulers):
            if each.leader.leads() and chance.random() < 0.1:
                each._write = killed
            try:
                each.round()
            except ZeroDivisionError:
                schedulers[n] = world.scheduler(f"s{second}")
        world.clock.advance(1)
    world.run(5, *schedulers)
    assert set(world.sent().values()) == {1}
    assert {at(n) for n in range(1, 1801)} <= set(world.seen)
    assert sum(world.messages.values()) > len(world.seen) + 20


def test_of_two_schedulers_that_both_lead_each_slot_starts_once():
    world = Unkeyed(tick={"schedule": 1, "misfire": "all"}, slow={"schedule": 7})
    both = [world.candidate(name, f"memory://{uuid.uuid4()}") for name in ("one", "other")]
    world.run(60, *both)
    assert all(each.leader.leads() for each in both)
    assert set(world.sent().values()) == {1}
    assert world.messages[at(30)] == 2
