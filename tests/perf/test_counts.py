"""How much is done for each call and each task, in numbers that do not depend on the machine: function calls, commands, bytes.

A limit is what was measured and about a tenth more. Who makes the way of a task longer raises a limit here, in the same change, and says
why; who makes it shorter lowers it. Python 3.13 makes as many calls as 3.11, give or take three.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests import servers
from tests.conftest import absent
from tests.perf.calls import make_app
from tests.perf.commands import Commands
from tests.processes import Running, wait_for

ROOT, APPS = Path(__file__).parents[2], Path(__file__).parent / "apps"

MOST_CALLS = {  # measured: CPython 3.11, redis-py 8.1 with hiredis 3.5, 2026-11-26
    ("delay", "memory"): 91,  # 84
    ("delay", "redis"): 142,  # 130
    # of a worker, for each message of a batch of 64, without and with a stored result
    ("claim", ""): 21,  # 19.8: in the thread that claims, with the settlement that rides on the next claim
    ("parent", ""): 78,  # 74.3: admitted, given to a child, its outcome read and made a settlement
    ("child", ""): 103,  # 93.4: decoded, run, its outcome encoded and sent
    ("claim", "results"): 58,  # 53.8
    ("parent", "results"): 82,  # 77.3
    ("child", "results"): 131,  # 119.4
}
TASKS = 5_000
MOST_COMMANDS = 0.1  # for each task, with all that the worker asks at its start, once a second, and at its end
MOST_OF_MANY = 6  # commands for 1,000 calls of delay_many()
MOST_BYTES = 1_000  # of a message, without the name of the host: 946


def counted(*arguments: str) -> dict[str, dict]:
    """Count in a process of its own: a profiler and what interrupts tasks do not go together."""
    command = [sys.executable, "-m", "tests.perf.calls", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_few(found: dict, what: str, limit: float, *arguments: str) -> None:
    """Fail with what to do about it."""
    most = "\n".join(f"  {count:7.2f}  {name}" for name, count in found["most"].items())
    again = " ".join(["python -m tests.perf.calls", *arguments[:1], "URL"])
    assert found["calls"] <= limit, (
        f"{what} makes {found['calls']} calls of functions; the limit is {limit}. Take out what is not needed, or raise the limit in "
        f"{Path(__file__).name} and say in the commit why. Look at the profile (`{again}`), the most called functions are\n{most}"
    )


def test_delay_makes_few_calls_of_functions_before_the_broker_has_the_message():
    assert_few(counted("delay", "memory://")["delay"], "delay() on memory://", MOST_CALLS["delay", "memory"], "delay")


@pytest.mark.redis
def test_delay_makes_few_calls_of_functions_until_redis_has_the_message(redis_url, redis_prefix):
    assert_few(counted("delay", redis_url, redis_prefix)["delay"], "delay() on Redis", MOST_CALLS["delay", "redis"], "delay")


@pytest.mark.redis
@pytest.mark.parametrize("results", ["", "results"], ids=["without a result", "with a result"])
def test_a_task_makes_few_calls_of_functions_where_it_is_claimed_in_the_parent_and_in_the_child(redis_url, redis_prefix, results):
    found = counted("run", redis_url, redis_prefix, results)
    for path in ("claim", "parent", "child"):
        assert_few(found[path], f"One of 64 tasks, in the path {path!r},", MOST_CALLS[path, results], "run")


@pytest.fixture
def private_redis() -> Iterator[str]:
    """A Redis that nobody else asks."""
    if servers.find_binary(servers.REDIS) is None:
        absent(servers.REDIS)
    with servers.private(servers.REDIS) as url:
        yield url


@pytest.mark.redis
def test_a_call_is_one_command_and_one_round_trip_and_many_calls_are_few(private_redis):
    noop = make_app(private_redis, "", results=False).tasks["perf.noop"]
    noop.delay(0)
    noop.delay_many([((0,), {}), ((0,), {})])
    with Commands(private_redis) as one_by_one:
        for number in range(50):
            noop.delay(number)
    assert one_by_one.sent == {"EVALSHA publish_now": 50}
    assert one_by_one.reads == 50
    with Commands(private_redis) as many:
        noop.delay_many(((number,), {}) for number in range(1000))
    assert many.sent.total() <= MOST_OF_MANY, f"delay_many() of 1,000 sends {dict(many.sent)}; the limit is {MOST_OF_MANY}"


@pytest.mark.redis
def test_the_message_of_a_small_call_is_small(private_redis):
    make_app(private_redis, "", results=False).tasks["perf.noop"].delay(1)
    with redis.Redis.from_url(private_redis) as client:
        raw = client.lindex("celery", 0)
    size = len(raw) - len(json.loads(raw)["headers"]["origin"])
    assert size <= MOST_BYTES, f"noop(1) is a message of {size} bytes; the limit is {MOST_BYTES}. It is\n{raw.decode()}"


@pytest.mark.redis
@pytest.mark.parametrize("results", ["", "results"], ids=["without results", "with results"])
def test_a_worker_sends_one_command_for_many_tasks(private_redis, tmp_path, results):
    make_app(private_redis, "", results=bool(results)).tasks["perf.noop"].delay_many(((number,), {}) for number in range(TASKS))
    done = tmp_path / "done"
    env = {**os.environ, "PERF_URL": private_redis, "PERF_RESULTS": results, "PERF_DONE": str(done), "C_FORCE_ROOT": "1"}
    command = [sys.executable, "-m", "umbel", "-A", "perf_app", "worker", "-P", "prefork", "-c", "1"]
    with Commands(private_redis) as commands, Running(command, cwd=APPS, env=env, log=tmp_path / "log") as worker:
        wait_for(lambda: done.exists() and done.stat().st_size >= TASKS, 60, worker.tail)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0
    with redis.Redis.from_url(private_redis) as client:
        kept = sum(1 for key in client.scan_iter(count=1000) if key.startswith(b"celery-task-meta-"))
        assert (client.llen("celery"), client.exists("{celery}.owners"), kept) == (0, 0, TASKS if results else 0)
    assert commands.sent.total() / TASKS <= MOST_COMMANDS, (
        f"The worker sent {commands.sent.total()} commands for {TASKS} tasks; the limit is {MOST_COMMANDS} for each. A claim should bring "
        f"hundreds of short tasks, and carry the settlements of those before. It sent {dict(commands.sent.most_common())}"
    )
    assert commands.reads / TASKS <= MOST_COMMANDS, f"Redis read {commands.reads} times for {TASKS} tasks: {dict(commands.sent)}"
