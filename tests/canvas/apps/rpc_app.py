"""The app of a worker whose result backend keeps no workflows; the environment says where, and to which file its tasks write."""

import json
import os

from tests.canvas.plans import CallsInFile

from umbel import Umbel

app = Umbel("rpc", **json.loads(os.environ["CANVAS_SETTINGS"]))
called = CallsInFile(os.environ["CANVAS_CALLS"])


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fails(*_):
    raise ValueError("no")


@app.task
def mark(x, name):
    called.append(f"{name} {x}")


@app.task
def note(request, exc, traceback):
    del traceback
    called.append(f"told of {request.id}: {exc}")


@app.task(bind=True)
def instead(self, sig):
    raise self.replace(app.signature(sig))
