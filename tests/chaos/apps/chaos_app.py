"""The tasks of the chaos runs. `key` is the task's id, too; the ledger knows tasks by it."""

import asyncio
import ctypes
import json
import os
import resource
import signal
import time

from chaos_flows import tasks_for
from chaos_ledger import Run

from umbel import Celery
from umbel.signals import worker_process_init

LEASE = float(os.environ["CHAOS_LEASE"])
BEAT = 0.05  # seconds between two signs that a long task still runs
BOMB = 512 * 1024 * 1024

app = Celery("chaos_app", broker=os.environ["CHAOS_BROKER"], backend=os.environ["CHAOS_BACKEND"])
app.conf.update(
    umbel_state_url=os.environ["CHAOS_STATE"],
    worker_lease=LEASE,
    worker_lease_renewal=LEASE / 4,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ["CHAOS_OPTIONS"]),
    result_backend_transport_options=json.loads(os.environ["CHAOS_OPTIONS"]),
    task_routes={"chaos_app.long": {"queue": "slow"}, "chaos_app.coro": {"queue": "slow"}},
    task_queues={"celery": {}, "slow": {}},
)
flow_tasks = tasks_for(app)


@worker_process_init.connect
def has_room(**_: object) -> None:
    """The full disk is the parent's. A child forked meanwhile inherits its limit, and could write no ledger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def beat_for(run: Run, seconds: float) -> None:
    """Work for *seconds*, and say so again and again."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(BEAT, left))
        run.say("beat")


@app.task
def quick(key: str, seconds: float = 0.0) -> str:
    with Run(key):
        time.sleep(seconds)
    return key


@app.task
def long(key: str, seconds: float) -> str:
    with Run(key) as run:
        beat_for(run, seconds)
    return key


@app.task(bind=True)
def held_up(self, key: str, seconds: float) -> str:
    """Take long, but only the first time: the run after a crash is over at once."""
    again = self.request.delivery_info["redelivered"]
    with Run(key, "again" if again else "first") as run:
        beat_for(run, 0 if again else seconds)
    return key


@app.task
async def coro(key: str, seconds: float) -> str:
    with Run(key) as run:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(BEAT)
            run.say("beat")
    return key


@app.task
def hog(key: str, seconds: float) -> str:
    """Hold the interpreter's lock."""
    with Run(key):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return key


@app.task(bind=True, max_retries=9)
def flaky(self, key: str, times: int) -> str:
    with Run(key, f"try-{self.request.retries}"):
        if self.request.retries < times:
            raise self.retry(countdown=0.3)
    return key


@app.task(ignore_result=True)
def links(key: str, more: int) -> None:
    """Call the next from inside: its id is the run's own, as a run that is repeated calls again."""
    with Run(key) as run:
        if more:
            child = f"{key}+{run.name}"
            links.apply_async((child, more - 1), task_id=child)
            run.say("sent", child)


@app.task
def bomb(key: str) -> str:
    """Ask for more memory than there may be."""
    with Run(key):
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (BOMB, before[1]))
        try:
            bytearray(2 * BOMB)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    return key


@app.task(bind=True)
def oom(self, key: str, always: bool) -> str:
    """Grow, and be killed as by the kernel: each time, or only the first."""
    with Run(key):
        if always or not self.request.delivery_info["redelivered"]:
            _ = bytearray(32 * 1024 * 1024)
            os.kill(os.getpid(), signal.SIGKILL)
    return key
