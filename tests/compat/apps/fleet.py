"""One app for both libraries: FLEET_LIBRARY says which of them reads this file."""

import importlib
import json
import os
import time
from pathlib import Path

LIBRARY = os.environ["FLEET_LIBRARY"]
FOLDER = Path(os.environ["FLEET_FOLDER"])

RESULTS = os.environ.get("FLEET_RESULTS") or os.environ["FLEET_URL"]

canvas = importlib.import_module(LIBRARY)
app = canvas.Celery("fleet", broker=os.environ["FLEET_URL"], backend=RESULTS)
app.conf.update(
    accept_content=["json", "msgpack"],
    result_extended=True,
    broker_connection_retry_on_startup=True,
    **json.loads(os.environ.get("FLEET_CONF", "{}")),
)


class BrokenError(Exception):
    """An exception of the project's own, which both sides import."""


def note(line: object) -> None:
    """Say in the ledger, a file that no queue knows of, who did what."""
    with (FOLDER / "ledger").open("ab", buffering=0) as ledger:
        ledger.write(f"{LIBRARY} {line}\n".encode())


def wait_for_file(name: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not (FOLDER / name).exists():
        if time.monotonic() > end:
            raise TimeoutError(name)
        time.sleep(0.01)


@app.task
def add(x, y):
    return x + y


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def work(number, seconds=0.0):
    time.sleep(seconds)
    note(number)
    return number


@app.task
def fails(text):
    raise ValueError(text)


@app.task
def breaks(*args):
    raise BrokenError(*args)


@app.task(track_started=True)
def held(name):
    wait_for_file(name)
    return name


@app.task(acks_late=True)
def held_late(name):
    note(f"holds {name}")
    wait_for_file(name)
    note(f"held {name}")
    return name


@app.task(bind=True)
def seen(self, *args, **kwargs):
    """What a task may know of its call."""
    request = self.request
    names = (
        "id", "task", "args", "kwargs", "root_id", "parent_id", "group", "retries", "eta", "expires", "shadow", "argsrepr", "kwargsrepr",
        "correlation_id", "reply_to", "origin", "hostname", "delivery_info", "headers", "timelimit", "ignore_result",
    )  # fmt: skip
    return {name: getattr(request, name) for name in names}


@app.task(bind=True, max_retries=10)
def flaky(self, times, countdown=0.1):
    note(f"flaky {self.request.retries}")
    if self.request.retries < times:
        raise self.retry(exc=KeyError("not yet"), countdown=countdown)
    return self.request.retries


@app.task(bind=True)
def hands_over(self, library, queue, countdown, extra=None):
    """Runs where it belongs; elsewhere it is retried on the queue of the others."""
    note(f"{self.request.id} {self.request.retries}")
    if library != LIBRARY:
        raise self.retry(queue=queue, countdown=countdown)
    return [LIBRARY, self.request.retries, self.request.id == self.request.root_id, extra]


@app.task(bind=True)
def progresses(self, name):
    self.update_state(state="PROGRESS", meta={"done": 1, "of": 2})
    wait_for_file(name)
    return "done"


@app.task
def sends(number):
    """Calls another task and returns its id."""
    return add.delay(number, 1).id


@app.task
def dies():
    os.kill(os.getpid(), 9)


@app.task(bind=True)
def tries_again(self, *args, **kwargs):
    """Is always retried, on a queue that nobody consumes."""
    raise self.retry(queue=f"again-{LIBRARY}", countdown=0)


@app.task
def total(values):
    return sum(values)


@app.task(bind=True)
def body(self, values, name):
    """The end of a chord; says in the ledger that it ran."""
    note(f"body {name} {sorted(values)}")
    return len(values)


@app.task
def collect(values):
    return sorted(values, key=lambda value: (str(type(value)), value if not isinstance(value, dict | list) else str(value)))


@app.task(bind=True, max_retries=3)
def adds_more(self, count, flaky=0):
    """Lets its chord wait for more; with *flaky* it is retried after it has done so."""
    for number in range(count):
        if self.request.retries == 0:
            self.add_to_chord(work.s(number))
    if self.request.retries < flaky:
        raise self.retry(countdown=0)
    return "added"


@app.task(bind=True)
def adds_chain(self):
    self.add_to_chord(canvas.chain(add.s(1, 2), add.s(3)))
    return "added"


@app.task(bind=True)
def becomes(self, *args):
    """Is replaced by another canvas."""
    *before, kind = args
    forms = {
        "task": lambda: echo.si(kind, *before),
        "chain": lambda: canvas.chain(echo.si(kind, *before), echo.s("then")),
        "group": lambda: canvas.group(add.si(10, 1), add.si(20, 1)),
        "chord": lambda: canvas.chord([add.si(1, 10), add.si(2, 10)], total.s()),
    }
    raise self.replace(forms[kind]())


@app.task(bind=True)
def told(self, failed, name):
    """An errback of the old style."""
    note(f"told {name} {failed}")


@app.task
def told_more(request, exc, traceback):
    """An errback of the new style."""
    note(f"told_more {request.id} {exc!r} {'Traceback' in str(traceback)}")
