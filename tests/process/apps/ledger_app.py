"""Tasks that write what they do into a ledger, a file that no queue knows of."""

import asyncio
import ctypes
import os
import time
from pathlib import Path

from umbel import Celery

app = Celery("ledger_app", broker=os.environ["LEDGER_BROKER"], backend=os.environ["LEDGER_BACKEND"])
app.conf.update(
    worker_lease=float(os.environ.get("LEDGER_LEASE", "1.5")),
    worker_lease_renewal=float(os.environ.get("LEDGER_LEASE", "1.5")) / 4,
    broker_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
    result_backend_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
)


def note(line: str) -> None:
    with Path(os.environ["LEDGER"]).open("ab", buffering=0) as ledger:
        ledger.write(f"{line}\n".encode())


@app.task
def work(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    note(f"{number}")
    return number


@app.task(acks_late=True)
def dies(number: int) -> None:
    note(f"dies {number}")
    os.kill(os.getpid(), 9)


@app.task
async def awaits(number: int, seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    note(f"{number}")
    return number


@app.task(bind=True, max_retries=5)
def flaky(self, number: int, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=0.05)
    note(f"{number}")
    return self.request.retries


@app.task
def holds_the_lock(number: int, seconds: int) -> int:
    ctypes.PyDLL(None).sleep(seconds)
    note(f"{number}")
    return number


@app.task
def raises(text: str) -> None:
    raise ValueError(text)
