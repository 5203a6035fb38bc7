"""The process from which all children come is killed, or can fork no more."""

import asyncio
import errno
import logging
import os
import signal

import pytest
from tests.faults.test_children import below, stop
from tests.faults.test_poison import Watched
from tests.faults.test_pool import Notes, children, pool_of, until
from tests.processes import wait_for

from umbel.execution.outcome import Job
from umbel.pools.zygote import Zygote

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_what_ran_when_the_zygote_was_killed_loses_no_attempt(odd, pool):
    watched = Watched(odd)
    odd.send("begins.delay(1, 0.5)")
    with odd.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: odd.times("begins 1") == 1, 20, odd.logs)
        os.kill(below(worker.pid)[0], signal.SIGKILL)
        assert worker.exit_code(10) == 1, worker.tail()
    with odd.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: odd.numbers() == {1}, 20, odd.logs)
        stop(worker)
    assert odd.times("begins 1") == 2
    assert watched.counted() == set()


def test_a_task_that_kills_the_zygote_each_time_is_buried(odd):
    """The first time nobody can say who did it; from then on it starts alone, and is counted."""
    odd.send("kills_its_zygote.delay(1)")
    for _ in range(4):
        with odd.worker("-c", "2") as worker:
            assert worker.exit_code(20) == 1, worker.tail()
    assert "ready=0, delayed=0, claimed=0, parked=0, dead=1" in odd.depth()
    assert odd.times("kills 1") == 4


def test_a_fork_that_fails_is_told_once_and_tried_again_and_costs_no_child(monkeypatch, caplog, tmp_path):
    full = tmp_path / "full"
    real = os.fork

    def fork() -> int:
        if full.exists():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real()

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr("umbel.pools.children.FORK_AGAIN", 0.1)

    async def body(pool) -> None:
        notes = Notes()
        pool.start(asyncio.get_running_loop(), notes)
        first, second = pool.slots
        await until(lambda: first.pid and second.pid)
        pool.send(second, [Job(1, 0, b"hang")])
        await until(pool.runs)
        full.touch()
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: "No process can be forked: Resource temporarily unavailable" in caplog.text)
        await asyncio.sleep(0.5)
        assert len(children(pool)) == 1
        assert [death.held for death in notes.deaths] == [frozenset()]
        full.unlink()
        await until(lambda: first.pid)
        assert [job.tag for job in pool.runs()] == [1]
        assert caplog.text.count("No process can be forked") == 1

    with pool_of("processes", 2) as pool:
        asyncio.run(body(pool))


def test_a_child_that_cannot_even_begin_and_a_zygote_that_fails_say_why(capfd):
    def fails(number: int) -> None:
        raise RuntimeError(f"a fault of ours in {number}")

    for handler in logging.getLogger().handlers[:]:  # those of pytest keep what a child logs in the memory of the child
        logging.getLogger().removeHandler(handler)
    zygote = Zygote(fails, [])
    zygote.spawn(7)
    zygote.report()
    assert os.waitstatus_to_exitcode(zygote.report()[2]) == 1
    zygote.control.send(b"?")
    with pytest.raises(EOFError):
        zygote.report()
    zygote.close()
    said = capfd.readouterr().err
    assert "RuntimeError: a fault of ours in 7" in said
    assert "The zygote" in said
    assert "unpack requires a buffer" in said
