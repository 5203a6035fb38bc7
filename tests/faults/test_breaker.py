"""Publishing with the broker down: a call costs at most its budget, then calls fail at once, and recovery needs nobody."""

import asyncio
import os
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.processes import wait_for
from tests.servers import free_port

from umbel import Celery, breaker
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured

redis = pytest.importorskip("redis")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

BUDGET = 0.6  # seconds


@pytest.fixture
def make_app():
    made = []

    def make(url, **settings):
        app = Celery("breaker", broker=url, broker_publish_timeout=BUDGET, **settings)
        made.append(app)
        app.task(lambda number: number, name="work")
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app, proxy):
    """An app that reaches its broker through the proxy."""
    return make_app(proxy.url)


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", 0.4)


def call(app, **options):
    return app.tasks["work"].apply_async((1,), **options)


def failure(app, **options):
    """Call, and return the error and how long it took."""
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        call(app, **options)
    return caught.value, time.monotonic() - started


def cut_off(proxy):
    proxy.refuse(True)
    proxy.cut()


def ready(app):
    return app.broker.depth(["celery"])["celery"].ready


def is_refused(exc):
    return str(exc).startswith("Nothing was sent: the broker cannot be reached since ")


def test_while_no_connection_can_be_made_a_thousand_calls_fail_at_once_and_touch_no_network(app, proxy):
    call(app)
    cut_off(proxy)
    error, took = failure(app)  # the connection it had is reset: this one may have arrived, and opens nothing
    error, took = failure(app)
    assert not is_refused(error)
    assert error.unreachable
    assert took < BUDGET + 1
    asked, times = proxy.asked, []
    until = app.breaker.outage.next_try
    for _ in range(1000):
        error, took = failure(app)
        times.append(took)
        assert is_refused(error)
        assert (error.unreachable, error.maybe_sent) == (True, False)
        if time.monotonic() > until - 0.1:
            break
    assert proxy.asked == asked
    print(f"{len(times)} calls, median {statistics.median(times) * 1e6:.0f} us, largest {max(times) * 1e3:.2f} ms")
    assert len(times) >= 100
    assert statistics.median(times) < 0.001
    assert "tries again" in str(error)
    assert "does not answer" in str(error)


def test_the_first_call_after_the_pause_finds_the_broker_again_without_anybodys_help(app, proxy, short_pauses):
    cut_off(proxy)
    failure(app)
    assert is_refused(failure(app)[0])
    proxy.refuse(False)
    wait_for(lambda: time.monotonic() > app.breaker.outage.next_try, 5)
    call(app)
    for _ in range(20):
        call(app)
    assert app.breaker.outage is None
    assert ready(app) == 21


def test_pauses_grow_while_the_broker_stays_away(app, proxy, short_pauses):
    cut_off(proxy)
    failure(app)
    pauses = []
    for _ in range(3):
        outage = app.breaker.outage
        pauses.append(outage.pause)
        wait_for(lambda outage=outage: time.monotonic() > outage.next_try, 5)
        assert not is_refused(failure(app)[0])
    assert pauses == [0.2, 0.4, 0.4]


def test_of_many_threads_one_at_a_time_tries_again(app, proxy, short_pauses):
    cut_off(proxy)
    failure(app)
    proxy.refuse(False)
    proxy.freeze()  # who tries now waits for its whole budget
    outage = app.breaker.outage
    wait_for(lambda: time.monotonic() > outage.next_try, 5)
    asked = proxy.asked
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: failure(app), range(8)))
    assert proxy.asked == asked + 1
    assert sum(is_refused(error) for error, _ in found) == 7
    assert sum(took > BUDGET / 4 for _, took in found) == 1
    proxy.thaw()
    wait_for(lambda: time.monotonic() > app.breaker.outage.next_try, 5)
    with ThreadPoolExecutor(8) as pool:
        pool.map(lambda _: contextless(app), range(8))
    assert app.breaker.outage is None


def contextless(app):
    try:
        call(app)
    except BrokerUnavailable:
        return False
    return True


@pytest.mark.parametrize("direction", ["both", "requests", "replies"])
def test_a_frozen_or_half_open_broker_costs_the_budget_and_then_nothing(app, proxy, direction):
    call(app)
    proxy.freeze(requests=direction != "replies", replies=direction != "requests")
    error, took = failure(app)  # on the connection it had: one slow call
    assert error.maybe_sent
    assert not error.unreachable
    assert took < BUDGET + 1
    assert app.breaker.outage is None
    error, took = failure(app)  # no new connection can be made
    assert (error.unreachable, error.maybe_sent) == (True, False)
    assert took < BUDGET + 1
    assert is_refused(failure(app)[0])
    proxy.thaw()


def test_a_slow_call_opens_nothing(app, private_redis):
    call(app)
    with redis.Redis(port=private_redis.port) as other:
        other.execute_command("CLIENT", "PAUSE", 700, "ALL")
    error, _ = failure(app)  # no reply within the time for one
    assert error.maybe_sent
    assert app.breaker.outage is None
    wait_for(lambda: contextless(app), 10)
    assert app.breaker.outage is None


def test_a_call_that_fails_while_later_ones_succeed_opens_nothing(app):
    broken = BrokerUnavailable("away", unreachable=True)
    begun = time.monotonic()
    call(app)
    app.breaker.open(app.broker, broken, begun=begun)
    assert app.breaker.outage is None


def test_a_name_that_cannot_be_looked_up_costs_at_most_the_budget(make_app):
    app = make_app("redis://nowhere.invalid:6379/0")
    error, took = failure(app)
    assert took < BUDGET + 1
    assert error.unreachable
    assert is_refused(failure(app)[0])


def test_what_cannot_be_a_name_is_a_wrong_setting_and_no_outage(make_app):
    with pytest.raises(ImproperlyConfigured, match="is not a Redis URL"):
        call(make_app(f"redis://{'a' * 70}.example:6379/0"))


def test_a_look_up_that_hangs_is_left_behind_at_the_end_of_the_budget(make_app, monkeypatch):
    ends = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(20) and [])
    app = make_app("redis://some.where:6379/0")
    error, took = failure(app)
    ends.set()
    assert took < BUDGET + 1
    assert "looking up its name" in str(error)


def test_a_port_that_nobody_listens_on_costs_no_more_than_the_budget(make_app):
    app = make_app(f"redis://127.0.0.1:{free_port()}/0")
    _, took = failure(app)
    assert took < BUDGET + 1
    assert is_refused(failure(app)[0])
    assert is_refused(failure(app, retry=False)[0])


def test_the_breaker_can_be_turned_off(make_app):
    app = make_app(f"redis://127.0.0.1:{free_port()}/0", broker_publish_breaker=False)
    for _ in range(3):
        assert not is_refused(failure(app, retry=False)[0])


def test_another_broker_is_not_thought_to_be_away(app, proxy, private_redis):
    cut_off(proxy)
    failure(app)
    assert is_refused(failure(app)[0])
    app.conf.broker_url = private_redis.url
    call(app)
    assert ready(app) == 1


def test_a_child_of_a_process_that_was_trying_can_try_itself(app, proxy, short_pauses):
    cut_off(proxy)
    failure(app)
    outage = app.breaker.outage
    wait_for(lambda: time.monotonic() > outage.next_try, 5)
    proxy.refuse(False)
    assert app.breaker._lock().acquire(blocking=False)  # a thread of the parent tries, and is not in the child
    assert is_refused(failure(app)[0])
    pid = os.fork()
    if pid == 0:
        os._exit(0 if contextless(app) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_coroutines_are_refused_at_once_too(app, proxy):
    async def one():
        started = time.monotonic()
        try:
            await app.tasks["work"].adelay(1)
        except BrokerUnavailable as exc:
            return exc, time.monotonic() - started
        raise AssertionError("it was sent")

    async def many():
        return await asyncio.gather(*(one() for _ in range(20)))

    cut_off(proxy)
    asyncio.run(one())
    asked = proxy.asked
    found = asyncio.run(many())
    assert all(is_refused(error) for error, _ in found)
    assert statistics.median(took for _, took in found) < BUDGET / 4
    assert proxy.asked == asked


def test_a_lost_reply_still_says_that_the_message_may_have_arrived(app, proxy):
    call(app)
    proxy.swallow(b"EVALSHA")
    error, _ = failure(app)
    assert error.maybe_sent
    assert app.breaker.outage is None
    call(app)
    assert ready(app) == 3


def test_one_outage_is_logged_once(app, proxy, short_pauses, caplog):
    cut_off(proxy)
    with caplog.at_level("INFO", logger="celery.publish"):
        for _ in range(30):
            failure(app)
        proxy.refuse(False)
        wait_for(lambda: contextless(app), 5)
    said = [record.getMessage() for record in caplog.records if record.name == "celery.publish"]
    assert len(said) == 2, said
    assert "Calls fail at once from now on" in said[0]
    assert "can be reached again" in said[1]
