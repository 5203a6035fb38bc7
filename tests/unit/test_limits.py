"""Limits: which ones hold, and that nothing is raised but in the task."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from umbel.exceptions import SoftTimeLimitExceeded
from umbel.execution.limits import Guard, HardLimit, Limits, bounded, limits_of
from umbel.pools.base import Running, Slot
from umbel.pools.evidence import shortened
from umbel.worker.limits import TimeLimits


@pytest.mark.parametrize(
    ("header", "own", "found"),
    [
        ([None, None], (None, None), None),
        ([30, 20], (3, 2), Limits(30, 20)),
        ([None, 20], (3, 2), Limits(3, 20)),
        ([None, None], (3, None), Limits(3, None)),
        (None, (3, 2), Limits(3, 2)),
        ([0, 0], (3, 2), Limits(3, 2)),
        ([-1, "20"], (None, None), None),
        ("30", (None, 2), Limits(None, 2)),
        ([1, 2, 3], (None, None), None),
        ([True, None], (5, None), Limits(5, None)),
        ([float("nan"), float("inf")], (5, None), Limits(5, None)),
        ([10**400, 1e300], (None, 2), Limits(None, 2)),
    ],
)
def test_the_message_wins_over_the_task_and_rubbish_is_no_limit(header, own, found):
    assert limits_of(header, SimpleNamespace(time_limit=own[0], soft_time_limit=own[1])) == found


def test_a_thread_is_interrupted_in_its_task_and_never_outside():
    """An interruption that comes late by a hair, again and again, reaches the task or nobody."""
    guard, told, stray, run = Guard(), [0], [], True

    def work() -> None:
        nonlocal run
        for tag in range(1, 3000):
            told[0] = tag
            try:
                try:
                    guard.enter(tag)
                    sum(range(tag % 300))
                finally:
                    guard.leave()
            except (SoftTimeLimitExceeded, HardLimit):
                pass
            try:
                for _ in range(20):
                    len(stray)
            except (SoftTimeLimitExceeded, HardLimit) as exc:
                stray.append((tag, exc))
        run = False

    thread = threading.Thread(target=work)
    thread.start()
    while run and thread.is_alive():
        guard.interrupt(told[0], SoftTimeLimitExceeded)
        time.sleep(0)
    thread.join(30)
    assert stray == []
    assert not run


def test_another_task_than_the_one_that_is_meant_is_left_alone():
    guard = Guard()
    guard.enter(2)
    guard.interrupt(1, SoftTimeLimitExceeded)
    with pytest.raises(SoftTimeLimitExceeded):
        guard.interrupt(2, SoftTimeLimitExceeded)
    guard.leave()
    guard.interrupt(2, SoftTimeLimitExceeded)


def run(coroutine, limits):
    said = []
    try:
        return asyncio.run(bounded(coroutine, limits, lambda: said.append("soft"), lambda: said.append("left"))), said
    except (Exception, SystemExit) as exc:
        return type(exc), said


def test_a_coroutine_sees_its_soft_limit_where_it_waits_and_its_own_time_outs_still_work():
    async def task():
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(60)
            return "cleaned"

    assert run(task(), Limits(60, 0.02)) == ("cleaned", ["soft"])


def test_a_coroutine_that_waits_for_others_is_told_too():
    async def task():
        with pytest.raises(SoftTimeLimitExceeded):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        return len(asyncio.all_tasks())

    assert run(task(), Limits(None, 0.02)) == (2, ["soft"])


def test_a_coroutine_is_cancelled_at_its_hard_limit_whatever_it_makes_of_it():
    async def swallows():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "well"

    assert run(swallows(), Limits(0.02, None)) == (HardLimit, [])


def test_what_a_coroutine_raises_or_returns_in_time_is_what_counts():
    async def leaves():
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def returns():
        await asyncio.sleep(0)
        return 1

    assert run(leaves(), Limits(60, 30)) == (SystemExit, [])
    assert run(returns(), Limits(60, 30)) == (1, [])


def test_a_traceback_tells_of_the_task_and_not_of_who_runs_it():
    text = """Fatal Python error: Segmentation fault

Thread 0x01 (most recent call first):
  File "/x/threading.py", line 1 in wait
  File "/x/umbel/pools/child.py", line 2 in serve_threads

Current thread 0x02 (most recent call first):
  File "/x/tasks.py", line 3 in f
  File "/x/umbel/execution/runner.py", line 4 in _start
  File "/x/umbel/pools/child.py", line 5 in serve

Extension modules: a, b"""
    assert shortened(text) == (
        'Fatal Python error: Segmentation fault\nCurrent thread 0x02 (most recent call first):\n  File "/x/tasks.py", line 3 in f'
    )


def test_a_coroutine_that_is_cancelled_from_outside_has_cleaned_up_when_that_is_told_and_one_that_goes_on_is_known():
    async def cleans_up(said):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            said.append("cleaned")

    async def goes_on(said):
        while "over" not in said:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def body(task, said):
        steps = asyncio.current_task()
        asyncio.get_running_loop().call_later(0.01, steps.cancel)
        with pytest.raises(asyncio.CancelledError):
            await bounded(task(said), Limits(30, None), lambda: None, lambda: said.append("left"))
        found = list(said)
        said.append("over")
        return found

    assert asyncio.run(body(cleans_up, [])) == ["cleaned"]
    assert asyncio.run(body(goes_on, [])) == ["left"]


def test_what_was_forgotten_and_still_runs_is_not_looked_at():
    """A solo worker that lost its lease cannot end the task that runs in its own thread."""
    slot, told = Slot(1, 1), []
    pool = SimpleNamespace(
        name="solo", grace=0.0, sees_to_limits=False, runs=lambda: [Running(slot, 1, time.monotonic() - 5)],
        interrupt=lambda slot, tag, *, hard: told.append((tag, hard)), end_task=lambda slot, tag: told.append(tag),
    )  # fmt: skip
    task = SimpleNamespace(run=len, name="t")
    sent = {1: (SimpleNamespace(limits=lambda: Limits(10, 2), task=task, glance=SimpleNamespace(id="a")), slot)}
    limits = TimeLimits(pool, sent)
    limits.look()
    sent.clear()
    limits.look()
    assert told == [(1, False)]


INTERRUPTED = """
import sys, threading
from umbel.exceptions import SoftTimeLimitExceeded
from umbel.execution.limits import Guard

guard = Guard()
try:
    try:
        guard.enter(1)
        threading.Timer(0.1, guard.interrupt, (1, SoftTimeLimitExceeded)).start()
        while True:
            len("in the task's own code")
    finally:
        guard.leave()
except SoftTimeLimitExceeded:
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    guard.enter(2)
    guard.leave()
    sys.setprofile(None)
    print(calls.count("call"))
"""


def test_an_interruption_leaves_nothing_behind_that_a_profiler_would_wait_for():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) >= 2
