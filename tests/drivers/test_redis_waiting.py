"""Waiting for results on Redis: one connection for all who wait in a process, and few round trips."""

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest
import redis
from tests import servers
from tests.faults.conftest import running_redis
from tests.processes import wait_for

from umbel import Celery
from umbel.backend import Record
from umbel.meta import build_meta, encode_meta
from umbel.result_wait import hub_of
from umbel.testing.conformance.base import succeeds_in_child

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    """A server that nobody else uses: its calls are counted."""
    if servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs a redis-server of its own: apt-get install redis-server")
    with running_redis(tmp_path_factory.mktemp("counted") / "redis") as server:
        yield server.url


@pytest.fixture
def app(redis_url, redis_prefix):
    options = {"global_keyprefix": redis_prefix}
    with Celery("waiting", broker=redis_url, backend=redis_url, result_backend_transport_options=options) as app:
        yield app


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as server:
        yield server


def store(app, *ids):
    documents = [(task_id, encode_meta(build_meta(task_id, "SUCCESS", task_id, now=datetime.now(UTC)))) for task_id in ids]
    app.backend.store([Record(id=task_id, state="SUCCESS", meta=meta, expires=60) for task_id, meta in documents])


def calls(server):
    """How often each command was called so far."""
    return {name: each["calls"] for name, each in server.info("commandstats").items()}


def subscribers(server):
    return int(server.info("clients").get("pubsub_clients", 0)) or len([each for each in server.client_list() if int(each["sub"]) > 0])


def test_a_thousand_results_are_waited_for_in_few_round_trips(app, server):
    ids = [f"many-{number}" for number in range(1000)]
    found = app.GroupResult("g", [app.AsyncResult(each) for each in ids])
    before, values = calls(server), []
    waiting = threading.Thread(target=lambda: values.append(found.get(timeout=60)))
    waiting.start()
    wait_for(lambda: subscribers(server) == 1)
    for each in ids:
        store(app, each)
    waiting.join(30)
    assert values == [ids]
    used = {name: count - before.get(name, 0) for name, count in calls(server).items()}
    assert used["cmdstat_subscribe"] == 2
    assert used["cmdstat_mget"] <= 6  # before the subscription, and after it
    assert used.get("cmdstat_get", 0) <= len(ids) + 4  # what storing reads, in its script


def test_threads_and_coroutines_share_one_connection(app, server):
    ids, values = [f"shared-{number}" for number in range(30)], []
    threads = [threading.Thread(target=lambda each=each: values.append(app.AsyncResult(each).get(timeout=60))) for each in ids[:20]]
    for each in threads:
        each.start()

    async def main():
        return await asyncio.gather(*(app.AsyncResult(each).aget(timeout=60) for each in ids[20:]))

    coroutines = threading.Thread(target=lambda: values.extend(asyncio.run(main())))
    coroutines.start()
    wait_for(lambda: len(hub_of(app.backend)._readers) == 30)
    wait_for(lambda: subscribers(server) == 1)
    store(app, *ids)
    for each in [*threads, coroutines]:
        each.join(30)
    assert sorted(values) == sorted(ids)
    assert not hub_of(app.backend)._readers


def test_who_waits_does_not_notice_that_the_connection_was_lost(app, server):
    values = []
    waiting = threading.Thread(target=lambda: values.append(app.AsyncResult("lost").get(timeout=60)))
    waiting.start()
    wait_for(lambda: subscribers(server) == 1)
    server.client_kill_filter(_type="pubsub")
    store(app, "lost")
    began = time.monotonic()
    waiting.join(30)
    assert values == ["lost"]
    assert time.monotonic() - began < 3


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_parent_and_child_wait_on_connections_of_their_own_after_a_fork(app, server):
    values = []
    waiting = threading.Thread(target=lambda: values.append(app.AsyncResult("parent").get(timeout=60)))
    waiting.start()
    wait_for(lambda: subscribers(server) == 1)

    def child():
        threading.Timer(0.2, store, (app, "child")).start()
        assert app.AsyncResult("child").get(timeout=60) == "child"

    assert succeeds_in_child(child)
    store(app, "parent")
    waiting.join(30)
    assert values == ["parent"]


def test_nothing_is_kept_for_results_that_nobody_waits_for(app):
    result = app.AsyncResult("nobody")
    result.then(print, weak=True)
    hub = hub_of(app.backend)
    assert len(hub._readers) == 1
    del result
    app.AsyncResult("other").then(print)  # the hub wakes
    wait_for(lambda: list(hub._readers) == ["other"])
