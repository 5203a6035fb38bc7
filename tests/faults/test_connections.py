"""The broker goes away, comes back, and answers late or never: nothing is lost, and nothing runs twice without need."""

import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from tests.faults.conftest import goes_by
from tests.faults.proxy import Proxy
from tests.processes import wait_for

from umbel.broker import Item, Settlement, Verb
from umbel.drivers.redis import RedisBroker
from umbel.exceptions import BrokerUnavailable
from umbel.ids import uuid

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

SEND = "work.delay_many([((n, {seconds}), {{}}) for n in range({count})])"
EMPTY = "QueueDepth(ready=0, delayed=0, claimed=0, parked=0, dead=0)"


def test_connections_reset_again_and_again_lose_nothing_and_repeat_nothing(direct, behind, proxy):
    direct.send(SEND.format(seconds=0.004, count=500))
    with behind.worker("-c", "4") as worker:
        for done in (50, 150, 250, 350, 450):
            wait_for(lambda done=done: len(behind.numbers()) >= done, 20, behind.logs)
            assert proxy.cut() > 0
        wait_for(lambda: len(behind.numbers()) == 500, 20, behind.logs)
        wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    # The lease outlives a reset: not even what was in flight runs again.
    assert [n for n, times in Counter(behind.lines()).items() if times > 1 and n != "ready"] == []
    assert "runs elsewhere" not in worker.log()


def test_the_lost_reply_of_a_claim_loses_nothing_and_doubles_nothing(direct, behind, proxy):
    with behind.worker("-c", "2") as worker:
        worker.waits_to_print("ready.")
        for start in range(0, 100, 20):
            proxy.swallow(script("fetch"))
            direct.send(f"work.delay_many([((n,), {{}}) for n in range({start}, {start + 20})])")
            assert proxy.swallowed.wait(10)
            wait_for(lambda start=start: len(behind.numbers()) == start + 20, 20, behind.logs)
        wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
    assert len(behind.lines()) == 101


def test_the_lost_reply_of_a_settlement_is_no_warning_and_repeats_nothing(direct, behind, proxy):
    with behind.worker("-c", "2") as worker:  # with a free slot it waits for messages: there is no claim for a settlement to ride on
        worker.waits_to_print("ready.")
        for number in range(3):
            proxy.swallow(script("settle"))
            direct.send(f"work.delay({number}, 0.3)")
            assert proxy.swallowed.wait(10)
            wait_for(lambda number=number: len(behind.numbers()) == number + 1, 20, behind.logs)
            wait_for(lambda: direct.depth() == EMPTY, 5, direct.depth)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert len(behind.lines()) == 4
    assert "runs elsewhere" not in worker.log()


def test_the_lost_reply_of_an_early_acknowledgement_loses_no_task(direct, behind, proxy):
    with behind.worker("-c", "1") as worker:
        direct.send("early.delay(0, 0)")  # the server has seen the script then: what is lost is no request to send it
        wait_for(lambda: "0" in behind.lines() and direct.depth() == EMPTY, 10, behind.logs)
        proxy.swallow(script("settle"))
        direct.send("early.delay(1, 0)")
        assert proxy.swallowed.wait(10), worker.tail()
        wait_for(lambda: "1" in behind.lines(), 10, behind.logs)
    assert behind.lines() == ["ready", "started 0", "0", "started 1", "1"]


def script(name: str) -> bytes:
    return RedisBroker("redis://localhost")._scripts[name].sha


def test_the_lost_reply_of_a_publish_says_that_it_may_have_arrived(direct, proxy):
    broker = RedisBroker(proxy.url)
    broker.publish([Item(raw=b"{}", queue="celery", id=uuid())])
    proxy.swallow(b"EVALSHA")
    asked = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        broker.publish([Item(raw=b"{}", queue="celery", id=uuid())])
    assert time.monotonic() - asked < 2.5
    assert caught.value.maybe_sent
    assert broker.depth(["celery"])["celery"].ready == 2
    broker.close()


DELAY = """
import time
began = time.monotonic()
try:
    work.delay(1)
except Exception as exc:
    print(type(exc).__name__, exc.maybe_sent, time.monotonic() - began < 2.5)
"""


def test_delay_raises_in_time_when_the_broker_accepts_and_never_answers(behind, proxy):
    proxy.freeze()
    assert behind.send(DELAY).strip() == "BrokerUnavailable False True"


def test_delay_raises_in_time_when_the_broker_falls_silent(behind, proxy):
    code = f"""
import os, sys, time
work.delay(0)
print("sent", flush=True)
sys.stdin.readline()
{DELAY}
"""
    with subprocess.Popen(
        [sys.executable, "-c", f"from faults_app import *\n{code}"],
        env=behind.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as producer:
        assert producer.stdout is not None
        assert producer.stdin is not None
        assert producer.stdout.readline() == "sent\n"
        proxy.freeze()
        said, _ = producer.communicate("\n", timeout=20)
    assert said.strip() == "BrokerUnavailable True True"


def test_delay_raises_in_time_when_connections_are_reset(behind, proxy):
    proxy.refuse(True)
    assert behind.send(DELAY).strip().endswith("True")


def test_the_lost_reply_of_a_recovery_leaves_nothing_claimed_by_who_does_not_know_it(private_redis):
    with Proxy(private_redis.url) as proxy:
        behind, direct = RedisBroker(proxy.url), RedisBroker(private_redis.url)
        direct.publish([Item(raw=b"{}", queue="celery", id=uuid()) for _ in range(5)])
        direct.join("gone", ["celery"], lease=0.5)
        assert len(direct.fetch("celery", 5, owner="gone", seq=1)) == 5
        behind.join("heir", ["celery"], lease=60)
        assert not behind.recover("celery", owner="heir", limit=3).deliveries  # the server has seen the script then
        goes_by(0.6)
        proxy.swallow(script("recover"))
        with pytest.raises(BrokerUnavailable):
            behind.recover("celery", owner="heir", limit=3)
        taken = [d for _ in range(3) for d in behind.recover("celery", owner="heir", limit=3).deliveries]
        assert len(taken) == len({d.tag for d in taken}) == 5
        assert behind.settle([Settlement(delivery=d, verb=Verb.ACK) for d in taken]) == [True] * 5
        for broker in (behind, direct):
            broker.close()
