"""Which number goes first: as the broker has it, or the same on each."""

import time
from uuid import uuid4

import pytest
from tests.rabbitmq import delete_queues

from umbel import Umbel
from umbel.context import Context
from umbel.current import pop_frame, push_frame

BROKERS = [
    "memory", pytest.param("redis", marks=pytest.mark.redis), pytest.param("amqp", marks=pytest.mark.amqp)
]  # fmt: skip


@pytest.fixture
def queue():
    return f"test-{uuid4().hex}"


@pytest.fixture
def app(request, queue):
    kind = request.param
    url = f"memory://{queue}" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
    app = Umbel(broker=url, task_default_queue=queue, task_queue_max_priority=10, broker_publish_timeout=10.0)
    if kind == "redis":
        app.conf.broker_transport_options = {"global_keyprefix": request.getfixturevalue("redis_prefix")}
    app.task(lambda: None, name="noop")
    yield app
    app.close()
    if kind == "amqp":
        delete_queues(url, queue)


def order_of(app, queue, *priorities):
    """Send calls of these priorities, and return them in the order in which they are delivered."""
    sent = {app.tasks["noop"].apply_async(priority=priority).id: priority for priority in priorities}
    found, broker = [], app.broker
    broker.join("w", [queue], lease=30)
    deadline, seq = time.monotonic() + 10, 0
    while len(found) < len(sent) and time.monotonic() < deadline:
        seq += 1
        for each in broker.fetch(queue, len(sent), owner="w", seq=seq):
            found += [priority for task_id, priority in sent.items() if task_id.encode() in each.raw]
        broker.wait("w", [queue], 0.1)
    broker.leave("w", [queue])
    return found


@pytest.mark.parametrize("app", BROKERS, indirect=True)
def test_without_a_direction_each_broker_has_its_own(app, queue):
    highest_first = app.broker_url().startswith("amqp")
    assert order_of(app, queue, 4, 0, 9) == sorted([0, 4, 9], reverse=highest_first)


@pytest.mark.parametrize("app", BROKERS, indirect=True)
@pytest.mark.parametrize(("direction", "expected"), [("low-first", [0, 4, 9]), ("high-first", [9, 4, 0])])
def test_a_direction_holds_on_each_broker(app, queue, direction, expected):
    app.conf.task_priority_direction = direction
    assert order_of(app, queue, 4, 0, 9) == expected


@pytest.mark.parametrize("app", ["memory"], indirect=True)
def test_a_retry_keeps_its_priority_whatever_the_direction(app, queue):
    app.conf.task_priority_direction = "high-first"
    task = app.tasks["noop"]
    task.apply_async(priority=8)
    broker = app.broker
    broker.join("w", [queue], lease=30)
    assert b'"priority": 2' in broker.fetch(queue, 1, owner="w", seq=1)[0].raw
    request = Context(id="i", task="noop", args=[], kwargs={}, called_directly=False, delivery_info={"priority": 2, "routing_key": queue})
    token = push_frame(task, request)
    try:
        assert task.retry(throw=False).sig.priority == 2
        assert task.retry(throw=False, priority=10).sig.priority == 0
    finally:
        pop_frame(token)
