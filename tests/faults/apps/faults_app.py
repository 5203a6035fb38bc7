"""The ledger's tasks, and some that do what tasks should not do to their process."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ledger_app import app, dies, early, holds_the_lock, note, quiet, work  # noqa: F401 - producers take them from here

from umbel.drivers.redis import RedisBroker
from umbel.execution.report import Reporter
from umbel.pools import children
from umbel.signals import task_received, worker_process_init, worker_ready

app.conf.broker_connection_retry_on_startup = os.environ.get("FAULTS_RETRY", "1") == "1"


@app.task
def begins(number: int, seconds: float) -> int:
    note(f"begins {number}")
    time.sleep(seconds)
    note(f"{number}")
    return number


@app.task
async def begins_async(number: int, seconds: float) -> int:
    note(f"begins {number}")
    await asyncio.sleep(seconds)
    note(f"{number}")
    return number


@app.task
def reads_address_zero(number: int) -> None:
    note(f"dies {number}")
    ctypes.string_at(0)


@app.task
def fills_memory_and_aborts(megabytes: int) -> None:
    kept = bytearray(megabytes * 1_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    os.abort()


@app.task(bind=True, ignore_result=True)
def says_when(self, number: int, due: float) -> None:
    """By which node it runs, and how late."""
    note(f"at {number} {self.request.hostname} {time.time() - due:.6f}")


@app.task(bind=True)
def waits_for_the_stop(self, number: int) -> None:
    note(f"begins {number} {self.request.stopping}")
    while not self.request.stopping:
        time.sleep(0.01)
    note(f"{number}")


@app.task(bind=True)
async def awaits_the_stop(self, number: int) -> None:
    note(f"begins {number} {self.request.stopping}")
    while not self.request.stopping:  # noqa: ASYNC110 - a flag in shared memory wakes nobody
        await asyncio.sleep(0.01)
    note(f"{number}")


@app.task(acks_late=True, acks_on_failure_or_timeout=False)
def fails_with_half_a_surrogate_pair() -> None:
    raise ValueError("a file that is called \udc80")


@app.task(bind=True)
def retries_to(self, number: int, queue: str) -> None:
    if not self.request.retries:
        raise self.retry(queue=queue, countdown=0)
    note(f"{number}")


@app.task(bind=True, max_retries=3)
def begins_and_retries(self, number: int, seconds: float) -> str:
    """Ask for a retry at the first run of each delivery; the run after it says by whom it was run."""
    note(f"begins {number} {os.getpid()}")
    if not self.request.retries:
        time.sleep(seconds)
        raise self.retry(countdown=0.05)
    note(f"{number}")
    return f"{self.request.hostname}"


@app.task(bind=True)
def begins_and_tells(self, number: int, seconds: float) -> str:
    note(f"begins {number} {os.getpid()}")
    time.sleep(seconds)
    note(f"{number}")
    return f"{self.request.hostname}"


class OddError(BaseException):
    """What no `except Exception` catches."""


ODD = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "odd": OddError("odd"), "group": BaseExceptionGroup("g", [SystemExit(3)])}


@app.task
async def raises_async(what: str) -> None:
    await asyncio.sleep(0)
    raise ODD[what]


@app.task
async def cancels_itself() -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(60)


@app.task
async def leaves_behind_what_exits(number: int) -> int:
    async def exits() -> None:
        raise SystemExit(3)

    app.left_behind = asyncio.create_task(exits())
    note(f"{number}")
    return number


class Exiting(app.Task):
    def on_success(self, *args: object) -> None:
        sys.exit("on_success exits")

    def on_failure(self, *args: object) -> None:
        sys.exit("on_failure exits")

    def on_retry(self, *args: object) -> None:
        sys.exit("on_retry exits")


@app.task(base=Exiting, bind=True)
def has_handlers_that_exit(self, number: int) -> int:
    if number == 1:
        raise ValueError(number)
    if number == 2:
        raise self.retry(countdown=0)
    return number


class Forking(app.Task):
    def on_success(self, *args: object) -> None:
        if os.fork() == 0:
            sys.exit(0)
        os.wait()


@app.task(base=Forking)
def has_a_handler_that_forks(number: int) -> int:
    note(f"{number}")
    return number


@app.task
def forks(number: int) -> int:
    """The child leaves as a program would: it runs on through whatever called this task."""
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    note(f"{number}")
    return number


@app.task
def forks_and_returns(number: int) -> int:
    if os.fork() == 0:
        return -1
    note(f"{number}")
    return number


@app.task
async def forks_and_returns_from_a_coroutine(number: int) -> int:
    if os.fork() == 0:
        return -1
    note(f"{number}")
    return number


@app.task
async def forks_and_awaits(number: int) -> int:
    """The copy would live on, and run what runs beside it."""
    await asyncio.sleep(0.01)
    copy = os.fork() == 0
    await asyncio.sleep(0.01)
    note(f"{-1 if copy else number}")
    return -1 if copy else number


@app.task
async def ticks(number: int, times: int) -> int:
    here = os.getpid()
    for _ in range(times):
        await asyncio.sleep(0)
        if os.getpid() != here:
            note("ticks in a copy")
    return number


@app.task
def starts_processes(number: int) -> list[Any]:
    """One is told to end, others work in a pool, one program needs a function before it starts."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=lambda: (theirs.send(1), time.sleep(60)))
    process.start()
    ours.recv()
    process.terminate()
    process.join(10)
    exitcode = process.exitcode
    process.kill()
    with multiprocessing.Pool(2) as pool:
        found = pool.map(abs, [1, -2, 3])
    program = subprocess.run([sys.executable, "-c", "print(4)"], preexec_fn=os.getpid, capture_output=True, check=True)
    return [number, exitcode, *found, int(program.stdout)]


told: list[int] = []  # signals that the next copy is sent as soon as it is there
os.register_at_fork(after_in_child=lambda: [os.kill(os.getpid(), number) for number in told])


@app.task
def forks_what_is_told_to_end_at_once(number: int) -> int:
    """The copy would go on for long, if it got over it; how it ended is returned."""
    told.append(number)
    pid = os.fork()
    if not pid:
        time.sleep(30)
        os._exit(0)
    told.clear()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@app.task
def starts_things(number: int) -> str:
    """A thread that outlives the task, and a program."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    said = subprocess.run([sys.executable, "-c", "print('from a program')"], capture_output=True, text=True, check=True).stdout
    note(f"{number}")
    return said.strip()


@app.task
def kills_its_node(number: int) -> None:
    """What the out-of-memory killer does to a container: the worker dies with all its processes."""
    note(f"kills_its_node {number}")
    os.killpg(os.getpgid(0), signal.SIGKILL)


@app.task(bind=True)
def tells_attempts(self, number: int, seconds: float) -> None:
    time.sleep(seconds)
    note(f"attempts {self.request.get('umbel_attempts') or 0}")
    note(f"{number}")


if os.environ.get("FAULTS_INIT_RAISES"):

    @worker_process_init.connect
    def break_the_start(**_: object) -> None:
        note("init")
        if os.environ["FAULTS_INIT_RAISES"] == "SystemExit":
            raise SystemExit(3)
        raise RuntimeError("the receiver is broken")


if os.environ.get("FAULTS_HANG") == "claim":
    fetch = RedisBroker.fetch

    def hang(self: RedisBroker, *args: Any, **kwargs: Any) -> Any:
        if Path(os.environ["LEDGER"]).with_name("hang").exists():
            time.sleep(1000)
        return fetch(self, *args, **kwargs)

    RedisBroker.fetch = hang

if os.environ.get("FAULTS_HANG") == "loop":

    @task_received.connect
    def hang_in_the_loop(**_: object) -> None:
        if Path(os.environ["LEDGER"]).with_name("hang").exists():
            time.sleep(1000)


if os.environ.get("FAULTS_BREAK") == "outcome":
    record = Reporter.record

    def breaks(self: Reporter, *args: Any, **kwargs: Any) -> Any:
        if Path(os.environ["LEDGER"]).with_name("break").exists():
            raise RuntimeError("a fault of ours")
        return record(self, *args, **kwargs)

    Reporter.record = breaks


children.TOO_SHORT = float(os.environ.get("FAULTS_TOO_SHORT", children.TOO_SHORT))

if os.environ.get("FAULTS_SLOW_START"):
    note("starting")
    time.sleep(float(os.environ["FAULTS_SLOW_START"]))


@worker_ready.connect
def say_ready(**_: object) -> None:
    note("ready")
