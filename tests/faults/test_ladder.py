"""The ladder of a stop: the first signal, the deadline, the second signal; to the worker alone and to its whole group."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

import pytest
from tests.faults.conftest import APPS, Faults, goes_by
from tests.process.test_worker import alive_in_session
from tests.processes import Running, wait_for

pytestmark = pytest.mark.timeout(240)

POOLS = ["prefork", "threads", "asyncio", "solo"]
GIVEN_BACK = "ready=1, delayed=0, claimed=0, parked=0, dead=0"
ATTEMPTS = """
from umbel.wire.marks import marks
broker = app.broker
broker.join("a-test", ["celery"], lease=5)
print([marks(d.raw) + (d.attempts, d.suspect) for d in broker.fetch("celery", 100, owner="a-test", seq=1)])
broker.leave("a-test", ["celery"])
"""


def soft(seconds: float) -> list[str]:
    return ["--", f"worker_soft_shutdown_timeout={seconds}"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_running_task_is_told_that_its_worker_stops(on_file, pool):
    on_file.send("waits_for_the_stop.delay(1)" if pool != "asyncio" else "awaits_the_stop.delay(1)")
    with on_file.worker("-P", pool, "-c", "1") as worker:
        wait_for(lambda: "begins 1 False" in on_file.lines(), 20, on_file.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(10) == 0, worker.tail()
    assert on_file.lines() == ["ready", "begins 1 False", "1"]


@pytest.mark.parametrize(("pool", "number"), [*((pool, signal.SIGTERM) for pool in POOLS), ("prefork", signal.SIGQUIT)])
def test_what_still_runs_at_the_deadline_is_given_back_and_loses_no_attempt(on_file, pool, number):
    on_file.send("begins.delay(1, 30)" if pool != "asyncio" else "begins_async.delay(1, 30)")
    on_file.send("begins.delay(2, 0.3)" if pool != "asyncio" else "begins_async.delay(2, 0.3)")
    with on_file.worker("-P", pool, "-c", "2", *soft(1.0)) as worker:
        wait_for(lambda: {"begins 1"} | ({"begins 2"} if pool != "solo" else set()) <= set(on_file.lines()), 20, on_file.logs)
        worker.send(number)
        assert worker.exit_code(8) == 0, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert "Traceback" not in worker.log(), worker.tail()
    waiting = 1 if pool != "solo" else 2
    assert ("2" in on_file.lines()) == (waiting == 1)
    assert f"ready={waiting}, delayed=0, claimed=0, parked=0, dead=0" in on_file.depth()
    assert on_file.send(ATTEMPTS).strip() == str([(0, False, 0, False)] * waiting)


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_the_second_signal_ends_a_worker_at_once_though_its_broker_is_silent(direct, behind, proxy, pool):
    direct.send("begins.delay(1, 30)")
    with behind.worker("-P", pool, "-c", "1") as worker:
        wait_for(lambda: "begins 1" in behind.lines(), 20, behind.logs)
        proxy.freeze()
        worker.send(signal.SIGTERM)
        worker.waits_to_print("Warm shutdown")
        goes_by(0.3)
        asked = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.exit_code(10) == 0, worker.tail()
        print(f"gone after {time.monotonic() - asked:.2f} s")
        assert time.monotonic() - asked < 3
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    proxy.thaw()
    with direct.worker("-P", pool, "-c", "1") as second:  # after the lease of the first
        wait_for(lambda: direct.times("begins 1") == 2, 20, direct.logs)
        second.kill()


def test_a_task_acknowledged_early_that_the_stop_has_ended_has_failed(on_file):
    on_file.send("early.delay(1, 30)")
    with on_file.worker("-c", "1", *soft(0.3)) as worker:
        wait_for(lambda: "started 1" in on_file.lines(), 20, on_file.logs)
        task = worker.log().partition("ledger_app.early[")[2].partition("]")[0]
        worker.send(signal.SIGTERM)
        assert worker.exit_code(8) == 0, worker.tail()
    said = on_file.send(f"print(repr(app.AsyncResult({task!r}).get(timeout=60, propagate=False)))")
    assert "WorkerLostError" in said
    assert "ready=0, delayed=0, claimed=0" in on_file.depth()


@pytest.mark.parametrize(
    ("pool", "numbers"),
    [
        ("prefork", (signal.SIGTERM, signal.SIGHUP)),
        ("prefork", (signal.SIGHUP,)),
        ("threads", (signal.SIGQUIT,)),
        ("solo", (signal.SIGQUIT,)),
    ],
)
def test_a_signal_to_the_whole_group_interrupts_no_task(on_file, pool, numbers):
    on_file.send("begins.delay(1, 1.0)")
    with on_file.worker("-P", pool, "-c", "2", *soft(20)) as worker:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        for number in numbers:
            os.killpg(worker.pid, number)
        assert worker.exit_code(10) == 0, worker.tail()
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    assert on_file.lines() == ["ready", "begins 1", "1"]
    assert "Traceback" not in worker.log(), worker.tail()


def test_a_worker_behind_a_shell_ends_its_tasks_when_the_group_is_signalled(on_file):
    on_file.send("begins.delay(1, 1.0)")
    shell = ["sh", "-c", f"{sys.executable} -m umbel -A faults_app worker -c 1 -l INFO; true"]
    with Running(shell, cwd=APPS, env=on_file.env, log=on_file.folder / "worker-1.log") as worker:
        wait_for(lambda: "begins 1" in on_file.lines(), 20, on_file.logs)
        os.killpg(worker.pid, signal.SIGTERM)
        wait_for(lambda: not alive_in_session(worker.pid), 10)
    assert on_file.lines() == ["ready", "begins 1", "1"]
    assert "claimed=0" in on_file.depth()


def test_a_worker_started_with_nohup_ignores_a_hangup(on_file):
    with Running(
        ["nohup", sys.executable, "-m", "umbel", "-A", "faults_app", "worker", "-c", "1"], cwd=APPS, env=on_file.env,
        log=on_file.folder / "worker-1.log",
    ) as worker:  # fmt: skip
        wait_for(lambda: "ready" in on_file.lines(), 20, on_file.logs)
        worker.send(signal.SIGHUP)
        on_file.send("work.delay(1)")
        wait_for(lambda: "1" in on_file.lines(), 20, on_file.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(10) == 0, worker.tail()


def test_control_c_twice_at_a_terminal_is_a_cold_stop(on_file):
    on_file.send("begins.delay(1, 30)")
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "umbel", "-A", "faults_app", "worker", "-c", "2", "-l", "INFO"]
    with subprocess.Popen(
        command, cwd=APPS, env=on_file.env, stdin=end, stdout=end, stderr=end, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(end, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread runs here
    ) as worker:  # fmt: skip
        os.close(end)
        os.set_blocking(terminal, False)
        seen = b""

        def says(text: bytes) -> bool:
            nonlocal seen
            with contextlib.suppress(OSError):
                seen += os.read(terminal, 65536)
            return text in seen

        wait_for(lambda: says(b"") and "begins 1" in on_file.lines(), 20, seen.decode)
        os.write(terminal, b"\x03")
        wait_for(lambda: says(b"Warm shutdown"), 10, seen.decode)
        goes_by(0.3)
        os.write(terminal, b"\x03")
        wait_for(lambda: (says(b"") or True) and worker.poll() is not None, 10, seen.decode)
        assert worker.returncode == 1
        wait_for(lambda: not alive_in_session(worker.pid), 3)
    os.close(terminal)
    assert b"Cold shutdown" in seen
    assert GIVEN_BACK in on_file.depth()


def order_of(faults: Faults) -> list[int]:
    return [int(line) for line in faults.lines() if line.isdigit()]


@pytest.mark.parametrize("store", ["on_file", pytest.param("direct", marks=pytest.mark.redis)])
def test_what_is_given_back_keeps_its_order_at_the_head(request, store):
    faults = request.getfixturevalue(store)
    faults.send("begins.delay(0, 1.0); [work.delay(n) for n in range(1, 40)]")
    with faults.worker("-c", "1", "--prefetch-multiplier", "20", *soft(0.2)) as worker:
        wait_for(lambda: "begins 0" in faults.lines(), 20, faults.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(8) == 0, worker.tail()
    assert "ready=40, delayed=0, claimed=0" in faults.depth()
    faults.send("work.delay(40)")
    with faults.worker("-c", "1") as worker:
        wait_for(lambda: len(order_of(faults)) == 41, 20, faults.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(8) == 0, worker.tail()
    assert order_of(faults) == list(range(41))
