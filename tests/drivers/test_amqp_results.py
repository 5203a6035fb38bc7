"""Results as messages: `rpc://`. It is no store, so the suite of backends is not for it."""

import contextlib
import json
import threading
import time
from uuid import uuid4

import pytest
from tests.processes import wait_for

from umbel import Umbel
from umbel.backend import Record
from umbel.exceptions import BackendUnavailable, ImproperlyConfigured, NotSupported
from umbel.meta import build_meta, encode_meta
from umbel.testing.conformance.base import succeeds_in_child

amqp = pytest.importorskip("umbel.drivers.amqp")
pytestmark = pytest.mark.amqp


def record(task_id, state, value, reply_to, fence=0):
    meta = encode_meta(build_meta(task_id, state, value, fence=fence))
    return Record(id=task_id, state=state, meta=meta, fence=fence, reply_to=reply_to)


def value(document):
    return None if document is None else json.loads(document)["result"]


def waited(backend, task_id, seen):
    """Return the first document of a task that is not *seen*."""
    with contextlib.closing(backend.watch()) as watch:
        watch.listen([task_id])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = watch.wait(10).get(task_id, seen)
            if found != seen:
                return found
    return None


@pytest.fixture
def make_backend(amqp_url):
    made = []

    def make():
        made.append(amqp.AmqpBackend(amqp_url, timeout=10.0))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def name():
    return f"reply-{uuid4()}"


@pytest.fixture
def caller(make_backend, name):
    caller = make_backend()
    caller.expect(name)
    return caller


@pytest.fixture
def worker(make_backend):
    return make_backend()


def test_a_result_comes_to_who_expects_it(caller, worker, name):
    assert caller.get(["a", "b"]) == [None, None]
    assert worker.store([record("a", "SUCCESS", 1, name), record("b", "FAILURE", 2, name)]) == [True, True]
    assert [value(waited(caller, each, None)) for each in "ab"] == [1, 2]
    assert [value(each) for each in caller.get(["b", "none", "a"])] == [2, None, 1]


def test_who_waits_is_woken_by_each_state(caller, worker, name):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(waited(caller, "a", None)))
    thread.start()
    worker.store([record("a", "STARTED", "begun", name)])
    thread.join(15)
    assert value(seen[0]) == "begun"
    worker.store([record("a", "SUCCESS", "done", name)])
    assert value(waited(caller, "a", seen[0])) == "done"


def test_a_late_word_of_an_older_delivery_changes_nothing(caller, worker, name):
    late = [record("a", "STARTED", "late", name, fence=3), record("a", "FAILURE", "later", name, fence=9)]
    worker.store([record("a", "SUCCESS", "first", name, fence=4), *late, record("end", "SUCCESS", 0, name)])
    assert value(waited(caller, "end", None)) == 0
    assert value(caller.get(["a"])[0]) == "first"


def test_what_was_forgotten_is_gone(caller, worker, name):
    worker.store([record("a", "SUCCESS", 1, name)])
    assert value(waited(caller, "a", None)) == 1
    caller.forget(["a", "unknown"])
    assert caller.get(["a"]) == [None]


@pytest.mark.parametrize("reply_to", ["", "nobody", "x" * 300])
def test_a_result_that_nobody_waits_for_is_dropped(worker, reply_to):
    assert worker.store([record("a", "SUCCESS", 1, reply_to)]) == [True]


def test_a_process_that_sent_nothing_is_told_where_results_go(worker):
    assert worker.get(["a"]) == [None]
    with pytest.raises(NotSupported, match="goes to the process that sent the task"):
        worker.watch().listen(["a"])


def test_a_process_keeps_the_latest_results_and_says_so(caller, worker, name, monkeypatch, caplog):
    monkeypatch.setattr("umbel.drivers.amqp.backend.MOST", 3)
    worker.store([record(str(number), "SUCCESS", number, name) for number in range(6)])
    assert value(waited(caller, "5", None)) == 5
    assert [value(each) for each in caller.get([str(number) for number in range(6)])] == [None, None, None, 3, 4, 5]
    assert caplog.text.count("the oldest are gone") == 1


def test_results_come_after_the_connection_was_lost(caller, worker, name):
    caller._parts.mailbox._made[0].drop()
    worker.store([record("a", "SUCCESS", 1, name)])  # into the queue, which nobody consumes now
    assert value(waited(caller, "a", None)) == 1


def test_the_queue_goes_with_its_process(caller, worker, name, amqp_url):
    import pika

    caller.close()
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))

    def gone():
        channel = connection.channel()
        try:
            channel.queue_declare(name, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return True
        channel.close()
        return False

    wait_for(gone, 10)
    connection.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_parent_and_child_may_both_go_on_after_a_fork(caller, worker, name):
    def child():
        own = f"reply-{uuid4()}"
        caller.expect(own)
        caller.store([record("c", "SUCCESS", "child", own), record("p", "SUCCESS", "parent", name)])
        assert value(waited(caller, "c", None)) == "child"
        caller.close()

    assert succeeds_in_child(child)
    assert value(waited(caller, "p", None)) == "parent"


def test_a_server_that_is_away_is_said():
    backend = amqp.AmqpBackend("amqp://127.0.0.1:1//", timeout=0.5)
    for act in (backend.open, lambda: backend.store([record("a", "SUCCESS", 1, "x")])):
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1 "):
            act()
    backend.close()


def test_rpc_means_the_broker_which_must_be_a_rabbitmq(amqp_url):
    app = Umbel(broker=amqp_url, backend="rpc://")
    assert isinstance(app.replies, amqp.AmqpBackend)
    app.conf.result_serializer = "pickle"
    app.conf.broker_url = "redis://me:secret@localhost/0"
    with pytest.raises(ImproperlyConfigured, match="must be a RabbitMQ") as caught:
        _ = app.backend
    assert "secret" not in str(caught.value)
    app.close()
