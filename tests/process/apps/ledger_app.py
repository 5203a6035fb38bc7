"""Tasks that write what they do into a ledger, a file that no queue knows of."""

import asyncio
import ctypes
import json
import os
import time
from pathlib import Path

from umbel import Celery
from umbel.exceptions import Reject

app = Celery("ledger_app", broker=os.environ["LEDGER_BROKER"], backend=os.environ["LEDGER_BACKEND"])
app.conf.update(
    worker_lease=float(os.environ.get("LEDGER_LEASE", "1.5")),
    worker_lease_renewal=float(os.environ.get("LEDGER_LEASE", "1.5")) / 4,
    umbel_state_url=os.environ.get("LEDGER_STATE"),
    broker_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
    result_backend_transport_options={"global_keyprefix": os.environ.get("LEDGER_PREFIX", "")},
)
app.conf.update(json.loads(os.environ.get("LEDGER_SETTINGS", "{}")))


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


@app.task(acks_late=True)
def rejects() -> None:
    raise Reject("no", requeue=False)


class Counting(app.Task):
    def __call__(self, *args, **kwargs):
        note(f"called {self.request.retries}")
        return super().__call__(*args, **kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        note(f"on_success {retval}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(f"after_return {status}")


@app.task(base=Counting, bind=True)
def counted(self, number: int) -> str:
    return f"{self.request.id == counted.request.id} {number}"


@app.task(autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=0.05, max_retries=2)
def always_fails(number: int) -> None:
    note(f"attempt {number}")
    raise KeyError(number)


@app.task(acks_late=False)
def early(number: int, seconds: float) -> None:
    note(f"started {number}")
    time.sleep(seconds)
    note(f"{number}")


@app.task
def prints(text: str) -> None:
    print(text)


@app.task(ignore_result=True)
def quiet(number: int) -> None:
    note(f"{number}")


@app.task
def unwritable() -> object:
    return object()


@app.task(bind=True)
def asks_in_a_task(self) -> str:
    try:
        work.delay(1).get()
    except RuntimeError as exc:
        return str(exc).splitlines()[0]
    return "got"


@app.task(bind=True, track_started=True)
def progresses(self, seconds: float) -> str:
    time.sleep(seconds)
    self.update_state(state="PROGRESS", meta={"done": 1})
    time.sleep(seconds)
    return "done"


@app.task
def exits() -> None:
    raise SystemExit(3)


@app.task(bind=True)
def body(self, values: list, name: str) -> int:
    note(f"body {name} {len(values)} {json.loads(self.request.umbel_flow)[3] if self.request.umbel_flow else ''}")
    return len(values)


@app.task(bind=True)
def told(self, failed: str, name: str) -> None:
    note(f"told {name}")


@app.task
def sum_of(values: list) -> int:
    return sum(values)
