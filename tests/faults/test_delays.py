"""Delayed messages: each runs once and never early, though workers that promote and the server itself are killed."""

import signal
from collections import Counter
from typing import NamedTuple

import pytest
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(240)

COUNT = 1200
LATER = 300  # messages that are due in an hour
SEND = f"""
import time
due = time.time() + 1
for n in range(0, {COUNT}, 20):
    when = due + n / {COUNT} * 2
    for k in range(n, n + 20, 10):  # ten of one due time
        says_when.delay_many([((i, when), {{}}) for i in range(k, k + 10)], eta=app.now().fromtimestamp(when, app.timezone))
says_when.delay_many([((i, 0), {{}}) for i in range({COUNT}, {COUNT + LATER})], countdown=3600)
"""


class Ran(NamedTuple):
    number: int
    node: str
    late: float


def ran(ledger):
    """What has been said whole: of a line that is being written, or whose writer was killed, there may be a part."""
    said = [line.split() for line in ledger.lines()]
    return [Ran(int(words[1]), words[2], float(words[3])) for words in said if len(words) == 4 and words[0] == "at"]


def holds(ledger, **places):
    said = ledger.depth()
    return all(f"{place}={count}" in said for place, count in places.items())


def check_none_was_early_or_lost(ledger, **claimed):
    found = ran(ledger)
    assert {each.number for each in found} == set(range(COUNT))
    late = sorted(each.late for each in found)
    print(f"late: median {late[len(late) // 2]:.3f} s, largest {late[-1]:.3f} s")
    assert late[0] >= 0
    assert holds(ledger, ready=0, delayed=LATER, dead=0, **claimed), ledger.depth()
    return found


@pytest.mark.parametrize("store", [pytest.param("redis", marks=pytest.mark.redis), "sqlite"])
def test_delayed_tasks_run_once_though_a_worker_that_promotes_and_the_server_are_killed(request, store):
    """The first worker is busy for all the time, so that it only promotes: what it takes with it when it is killed is no delayed task."""
    ledger = request.getfixturevalue("direct" if store == "redis" else "on_file")
    ledger.send("begins.delay(1, 60.0)")
    with ledger.worker("-c", "1", "-n", "busy@%h") as busy:
        wait_for(lambda: "begins 1" in ledger.lines(), 20, ledger.logs)
        with ledger.worker("-c", "2", "-n", "free@%h") as free:
            free.waits_to_print("ready.")
            ledger.send(SEND)
            wait_for(lambda: len(ran(ledger)) >= 250, 20, ledger.logs)
            busy.kill()
            busy.end_group()
            wait_for(lambda: len(ran(ledger)) >= 550, 20, ledger.logs)
            if store == "redis":
                server = request.getfixturevalue("private_redis")
                server.kill()
                server.start()
            wait_for(lambda: len({each.number for each in ran(ledger)}) == COUNT, 30, ledger.logs)
            # What the busy one held is still its own, or was taken over.
            wait_for(lambda: holds(ledger, ready=0, claimed=1), 10, ledger.depth)
            found = check_none_was_early_or_lost(ledger, claimed=1)
            free.send(signal.SIGQUIT)
            free.exit_code()
    twice = {number: times for number, times in Counter(each.number for each in found).items() if times > 1}
    assert twice == {}


@pytest.mark.redis
def test_of_delayed_tasks_only_what_a_killed_worker_held_runs_again(direct):
    ledger = direct
    with ledger.worker("-c", "2", "-n", "killed@%h") as killed, ledger.worker("-c", "2", "-n", "other@%h") as other:
        killed.waits_to_print("ready.")
        other.waits_to_print("ready.")
        ledger.send(SEND)
        wait_for(lambda: sum(each.node.startswith("killed") for each in ran(ledger)) >= 150, 20, ledger.logs)
        killed.kill()
        killed.end_group()
        wait_for(lambda: len({each.number for each in ran(ledger)}) == COUNT, 30, ledger.logs)
        wait_for(lambda: holds(ledger, claimed=0), 10, ledger.depth)
        found = check_none_was_early_or_lost(ledger, claimed=0)
        other.send(signal.SIGTERM)
        assert other.exit_code() == 0, other.tail()
    times = Counter(each.number for each in found)
    by_the_killed = {each.number for each in found if each.node.startswith("killed")}
    assert {number for number, count in times.items() if count > 1} <= by_the_killed
    assert max(times.values()) <= 2
