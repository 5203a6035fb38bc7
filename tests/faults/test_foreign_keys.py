"""Somebody else has written to a key of ours, as another type. A script that fails half-way undoes nothing, and must lose nothing."""

import contextlib
import signal

import pytest
from redis import Redis
from tests.processes import wait_for

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
        direct.send("retries_to.delay(1, 'elsewhere')\nfor n in range(2, 40): work.delay(n)")
        wait_for(lambda: direct.numbers() == set(range(2, 40)), 30, worker.tail)
        direct.send("for n in range(40, 60): work.delay(n)")
        wait_for(lambda: direct.numbers() == set(range(2, 60)), 30, worker.tail)
        client.delete("elsewhere")
        wait_for(lambda: direct.numbers() == set(range(1, 60)), 30, worker.tail)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(20) == 0, worker.tail()
    assert sorted(line for line in direct.lines() if line.isdigit()) == sorted(map(str, range(1, 60)))
    assert worker.log().count("Connection to broker lost") <= 3, worker.tail()
    assert direct.depth() == "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"
