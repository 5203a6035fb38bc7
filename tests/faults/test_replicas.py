"""A Redis with a replica: with the option `replicas`, what counts as published outlives the server."""

import signal
import time

import pytest
from tests.faults.conftest import running_redis
from tests.processes import wait_for

from umbel import Celery
from umbel.exceptions import BrokerUnavailable

redis = pytest.importorskip("redis")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]


@pytest.fixture
def replica(tmp_path, private_redis):
    with running_redis(tmp_path / "replica") as server:
        with redis.Redis(port=private_redis.port) as primary, redis.Redis(port=server.port) as client:
            primary.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", private_redis.port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", 20)
        yield server


@pytest.fixture
def make_app():
    made = []

    def make(server, **options):
        app = Celery("replicas", broker=server.url, broker_transport_options=options)
        made.append(app)
        app.task(lambda number: number, name="work")
        return app

    yield make
    for app in made:
        app.close()


def depth(app):
    depth = app.broker.depth(["celery"])["celery"]
    return depth.ready, depth.delayed


def test_what_replicas_confirmed_outlives_the_server_that_took_it(make_app, private_redis, replica):
    app = make_app(private_redis, replicas=1)
    work = app.tasks["work"]
    work.delay(1)
    work.delay_many([((n,), {}) for n in range(450)])
    work.apply_async((1,), countdown=3600)
    private_redis.kill()
    with redis.Redis(port=replica.port) as client:
        client.replicaof("NO", "ONE")
    assert depth(make_app(replica)) == (451, 1)


@pytest.mark.parametrize("options", [{}, {"countdown": 3600}])
def test_a_replica_that_does_not_confirm_makes_the_call_fail_in_time_and_say_that_the_message_may_be_there(
    make_app, private_redis, replica, options
):
    replica.send(signal.SIGSTOP)
    app = make_app(private_redis, replicas=1)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="0 instead of 1 replicas confirmed it within 1 s") as caught:
        app.tasks["work"].apply_async((1,), **options)
    assert time.monotonic() - started < 2.5
    assert caught.value.maybe_sent
    assert app.breaker.outage is None
    assert sum(depth(app)) == 1
    replica.send(signal.SIGCONT)
    wait_for(lambda: succeeds(app), 10)


def succeeds(app):
    try:
        app.tasks["work"].delay(2)
    except BrokerUnavailable:
        return False
    return True


def test_without_the_option_nobody_waits_for_a_replica(make_app, private_redis, replica):
    replica.send(signal.SIGSTOP)
    make_app(private_redis).tasks["work"].delay(1)
    replica.send(signal.SIGCONT)
