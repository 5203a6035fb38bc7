"""Somebody else has written to a key of ours, as another type. A script that fails half-way undoes nothing, and must lose nothing."""

import contextlib
import re
import signal
import time

import pytest
from redis import Redis
from tests.processes import wait_for

from umbel import Celery
from umbel.backend import Record
from umbel.broker import Item, Settlement, Verb
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.exceptions import OperationalError
from umbel.ids import uuid

pytestmark = pytest.mark.redis


@pytest.fixture
def broker(redis_url, redis_prefix):
    broker = RedisBroker(redis_url, options={"global_keyprefix": redis_prefix})
    yield broker
    broker.close()


@pytest.fixture
def backend(redis_url, redis_prefix):
    backend = RedisBackend(redis_url, options={"global_keyprefix": redis_prefix})
    yield backend
    backend.close()


@pytest.fixture
def client(redis_url):
    with contextlib.closing(Redis.from_url(redis_url)) as client:
        yield client


def claimed(broker):
    """Publish one message and claim it."""
    broker.join("me", ["celery"], lease=60.0)
    broker.publish([Item(raw=b'{"one": 1}', queue="celery", id=uuid())])
    (delivery,) = broker.fetch("celery", 1, owner="me", seq=1)
    return delivery


def test_a_result_key_of_another_type_is_replaced_and_the_retry_is_kept(broker, backend, redis_url):
    delivery, task_id = claimed(broker), uuid()
    assert broker.settles_with(backend)
    with contextlib.closing(Redis.from_url(redis_url)) as client:
        client.rpush(backend.prefix + task_id, "not a result")
    record = Record(id=task_id, state="RETRY", meta=b'{"status": "RETRY"}', fence=delivery.fence)
    again = Item(raw=b'{"two": 2}', queue="celery", id=uuid())
    assert broker.settle([Settlement(delivery=delivery, verb=Verb.RETRY, replacement=again, records=[record])]) == [True]
    assert backend.get([task_id]) == [b'{"status": "RETRY"}']
    depth = broker.depth(["celery"])["celery"]
    assert (depth.ready, depth.claimed) == (1, 0)


def test_a_retry_that_finds_no_list_to_go_to_leaves_its_message_claimed(broker, redis_url):
    delivery = claimed(broker)
    (ready, *_) = broker.keys("elsewhere").ready
    with contextlib.closing(Redis.from_url(redis_url)) as client:
        client.set(ready, "not a list")
        again = Item(raw=b'{"two": 2}', queue="elsewhere", id=uuid())
        with pytest.raises(OperationalError):
            broker.settle([Settlement(delivery=delivery, verb=Verb.RETRY, replacement=again)])
        assert broker.depth(["celery"])["celery"].claimed == 1
        client.delete(ready)
    assert broker.settle([Settlement(delivery=delivery, verb=Verb.RETRY, replacement=again)]) == [True]
    assert broker.depth(["elsewhere"])["elsewhere"].ready == 1


def test_a_retry_that_cannot_be_carried_out_holds_up_no_other_task_and_is_carried_out_when_it_can(direct, private_redis):
    with contextlib.closing(Redis(port=private_redis.port)) as client, direct.worker("-c", "1", "-Q", "celery,elsewhere") as worker:
        client.set("elsewhere", "not a list")
        since = time.monotonic()
        direct.send("retries_to.delay(1, 'elsewhere')\nfor n in range(2, 40): work.delay(n)")
        wait_for(lambda: direct.numbers() == set(range(2, 40)), 30, worker.tail)
        direct.send("for n in range(40, 60): work.delay(n)")
        wait_for(lambda: direct.numbers() == set(range(2, 60)), 30, worker.tail)
        client.delete("elsewhere")
        wait_for(lambda: direct.numbers() == set(range(1, 60)), 30, worker.tail)
        seconds = time.monotonic() - since
        worker.send(signal.SIGTERM)
        assert worker.exit_code(20) == 0, worker.tail()
    assert sorted(line for line in direct.lines() if line.isdigit()) == sorted(map(str, range(1, 60)))
    assert worker.log().count("Connection to broker lost") <= 4 + seconds, worker.tail()  # and not each half second
    assert direct.depth() == "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


def places(broker, queue="celery"):
    """Return how many are ready, delayed, claimed, parked, dead."""
    depth = broker.depth([queue])[queue]
    return depth.ready, depth.delayed, depth.claimed, depth.parked, depth.dead


def low(broker, due=None):
    """Return a message of the last step, and the list that it goes to."""
    return Item(raw=b'{"low": 1}', queue="celery", id=uuid(), priority=9, due=due), broker.keys("celery").ready[-1]


def test_follow_ups_are_sent_once_or_not_at_all_when_one_of_them_finds_no_list(broker, client):
    delivery = claimed(broker)
    follow_ups = [Item(raw=b"{}", queue=queue, id=uuid()) for queue in ("first", "elsewhere")]
    client.set(broker.keys("elsewhere").ready[0], "not a list")
    for _ in range(3):
        with pytest.raises(OperationalError):
            broker.settle([Settlement(delivery=delivery, verb=Verb.ACK, follow_ups=follow_ups)])
    assert places(broker, "first") == (0, 0, 0, 0, 0)
    assert places(broker) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(("verb", "place"), [(Verb.BURY, "dead"), (Verb.PARK, "parked")])
@pytest.mark.parametrize("part", ["", ":data", ":index"])
def test_what_cannot_be_put_away_stays_claimed_and_leaves_nothing_behind(broker, client, verb, place, part):
    delivery, key = claimed(broker), broker.keys("celery")[place]
    client.set(key + part, "of another type")
    for _ in range(2):
        with pytest.raises(OperationalError):
            broker.settle([Settlement(delivery=delivery, verb=verb, reason="t")])
    client.delete(key + part)
    assert places(broker) == (0, 0, 1, 0, 0)
    assert broker.settle([Settlement(delivery=delivery, verb=verb, reason="t")]) == [True]
    assert sum(places(broker)) == 1


def test_what_is_due_and_finds_no_list_is_promoted_once_when_it_can_be(broker, client):
    item, ready = low(broker, due=time.time() + 1)
    broker.publish([item, Item(raw=b'{"high": 1}', queue="celery", id=uuid(), due=time.time() + 1)])
    client.set(ready, "not a list")
    wait_for(lambda: moved(broker), 5)
    for _ in range(3):
        with pytest.raises(OperationalError):
            broker.promote("celery")
    client.delete(ready)
    assert places(broker) == (1, 1, 0, 0, 0)
    assert broker.promote("celery") is None
    assert places(broker) == (2, 0, 0, 0, 0)


def moved(broker):
    """Promote, and answer whether there was something that is due and finds no list."""
    try:
        broker.promote("celery")
    except OperationalError:
        return True
    return False


def test_a_letter_that_finds_no_list_is_not_lost(broker, client):
    broker.join("me", ["celery"], lease=60.0)
    item, ready = low(broker)
    broker.publish([item])
    (delivery,) = broker.fetch("celery", 1, owner="me", seq=1)
    broker.settle([Settlement(delivery=delivery, verb=Verb.BURY, reason="t")])
    client.set(ready, "not a list")
    for _ in range(2):
        with pytest.raises(OperationalError):
            broker.requeue(broker.dead("celery"))
    client.delete(ready)
    assert broker.requeue(broker.dead("celery")) == 1
    assert places(broker) == (1, 0, 0, 0, 0)


def test_who_leaves_and_finds_no_list_keeps_what_it_cannot_give_back(broker, client):
    broker.join("me", ["celery"], lease=60.0)
    (item, _), ready = low(broker), broker.keys("celery").ready[0]
    broker.publish([item, Item(raw=b'{"high": 1}', queue="celery", id=uuid())])
    assert len(broker.fetch("celery", 2, owner="me", seq=1)) == 2
    client.set(ready, "not a list")
    for _ in range(2):
        with pytest.raises(OperationalError):
            broker.leave("me", ["celery"])
    client.delete(ready)
    assert sum(places(broker)) == 2
    broker.leave("me", ["celery"])
    assert places(broker) == (2, 0, 0, 0, 0)


def test_a_fence_of_another_type_costs_no_message(broker, client):
    broker.join("me", ["celery"], lease=60.0)
    broker.publish([Item(raw=b"{}", queue="celery", id=uuid())])
    client.rpush(broker.keys("celery")["fence"], "not a number")
    assert len(broker.fetch("celery", 1, owner="me", seq=1)) == 1
    assert places(broker) == (0, 0, 1, 0, 0)


def test_a_purge_that_finds_no_list_deletes_nothing_and_says_so(broker, client):
    item, ready = low(broker)
    broker.publish([Item(raw=b"{}", queue="celery", id=uuid())])
    client.set(ready, "not a list")
    with pytest.raises(OperationalError, match="WRONGTYPE"):
        broker.purge("celery")
    client.delete(ready)
    broker.publish([item])
    assert broker.purge("celery") == 2


def test_a_list_of_revoked_ids_that_cannot_be_written_whole_is_not_written(broker, client):
    key = f"{broker._revoked.key}.signals"
    client.set(key, "of another type")
    with pytest.raises(OperationalError):
        broker.revoke(["a"], ttl=60.0)
    client.delete(key)
    assert not broker.revoked_since(0).entries


@pytest.mark.parametrize("count", [1, 3])
def test_a_bell_that_cannot_be_rung_fails_no_publish(broker, client, count):
    broker.join("me", ["celery"], lease=60.0)
    client.set(broker.keys("celery")["idle"], "of another type")
    assert broker.fetch("celery", 1, owner="me", seq=1) == []
    broker.publish([Item(raw=b"{}", queue="celery", id=uuid()) for _ in range(count)])
    broker.publish([Item(raw=b"{}", queue="celery", id=uuid(), due=time.time() - 1)])
    assert len(broker.fetch("celery", 9, owner="me", seq=2)) == count + 1


@pytest.fixture
def calls(redis_url, redis_prefix):
    """An app for a user who may touch the queue's list, and none of the keys beside it."""
    name = redis_prefix.strip(":{}").replace(":", "-")
    with contextlib.closing(Redis.from_url(redis_url)) as client:
        client.acl_setuser(name, enabled=True, passwords=["+secret"], commands=["+@all"], keys=[f"{redis_prefix}celery*"], channels=["*"])
        app = Celery(broker=re.sub("//(.*@)?", f"//{name}:secret@", redis_url), broker_transport_options={"global_keyprefix": redis_prefix})
        yield app.task(lambda: None, name="work")
        app.close()
        client.acl_deluser(name)


def test_a_call_that_may_not_ring_the_bell_is_stored_once(calls, broker):
    calls.delay()
    assert places(broker)[0] == 1


def test_what_a_script_may_have_stored_before_it_failed_is_not_sent_again(calls, broker):
    with pytest.raises(OperationalError) as caught:
        calls.apply_async(countdown=60)
    assert caught.value.maybe_sent
    assert sum(places(broker)) == 0


def test_what_was_carried_out_before_a_settlement_that_fails_is_counted(broker, client):
    broker.join("me", ["celery"], lease=60.0)
    broker.publish([Item(raw=b'{"one": 1}', queue="celery", id=uuid()) for _ in range(5)])
    held = broker.fetch("celery", 5, owner="me", seq=1)
    (ready, *_) = broker.keys("elsewhere").ready
    client.set(ready, "not a list")
    again = Item(raw=b'{"two": 2}', queue="elsewhere", id=uuid())
    fails = Settlement(delivery=held[2], verb=Verb.RETRY, replacement=again, tally="again")
    acks = [Settlement(delivery=each, verb=Verb.ACK, tally="done") for each in held]
    with pytest.raises(OperationalError, match="WRONGTYPE"):
        broker.settle([acks[0], fails, acks[1]])
    with pytest.raises(OperationalError, match="WRONGTYPE"):
        broker.fetch("celery", 0, owner="me", seq=2, settle=[acks[3], fails, acks[4]])
    assert [each.count for each in broker.tallies("celery", since=0)] == [2]
    client.delete(ready)
    assert broker.settle([acks[0], fails, acks[1], acks[3], acks[4]]) == [False, True, True, False, True]
    counts = {tally: sum(e.count for e in broker.tallies("celery", since=0) if e.tally == tally) for tally in ("done", "again")}
    assert counts == {"done": 4, "again": 1}


def test_what_cannot_be_counted_is_settled_all_the_same(broker, client):
    broker.join("me", ["celery"], lease=60.0)
    broker.publish([Item(raw=b'{"one": 1}', queue="celery", id=uuid()) for _ in range(2)])
    held = broker.fetch("celery", 2, owner="me", seq=1)
    minute = int(time.time()) // 60 * 60
    for each in range(minute - 60, minute + 180, 60):
        client.rpush(broker.keys("celery")[f"tally:{each}"], "not a hash")
    assert broker.settle([Settlement(delivery=held[0], verb=Verb.ACK, tally="done")]) == [True]
    assert broker.fetch("celery", 9, owner="me", seq=2, settle=[Settlement(delivery=held[1], verb=Verb.ACK, tally="done")]) == []
    assert broker.depth(["celery"])["celery"].claimed == 0
    assert broker.tallies("celery", since=0) == []
