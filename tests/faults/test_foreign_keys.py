"""Somebody else has written to a key of ours, as another type. A script that fails half-way undoes nothing, and must lose nothing."""

import contextlib

import pytest
from redis import Redis

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
