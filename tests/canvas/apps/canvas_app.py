"""The app of a worker that runs canvases of plans; the environment says where, and to which file its tasks write what they did."""

import json
import os

from tests.canvas.plans import CallsInFile, tasks_of

import umbel.contrib.testing.tasks  # noqa: F401 - registers celery.ping
from umbel import Umbel

app = Umbel("gen", **json.loads(os.environ["CANVAS_SETTINGS"]))
tasks_of(app, CallsInFile(os.environ["CANVAS_CALLS"]))
