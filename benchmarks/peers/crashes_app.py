"""The tasks of crashes.py, for umbel and for Celery: CRASHES_SYSTEM says for which."""

import os
import signal
import time
from pathlib import Path

from chaos_ledger import Run

SYSTEM = os.environ["CRASHES_SYSTEM"]
if SYSTEM == "umbel":
    from umbel import Celery
else:
    from celery import Celery

app = Celery("crashes", broker=os.environ["CRASHES_URL"], backend=os.environ["CRASHES_URL"])
if SYSTEM == "celery-late":
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, broker_transport_options={"visibility_timeout": 30})
if SYSTEM != "umbel":
    app.conf.broker_connection_retry_on_startup = True  # else it warns at each start


@app.task
def work(key, seconds=0.0):
    with Run(key):
        time.sleep(seconds)


@app.task
def held_up(key, seconds):
    """Take long, but only the first time."""
    again = f" begin {key} " in Path(os.environ["CHAOS_LEDGER"]).read_text()
    with Run(key):
        time.sleep(0 if again else seconds)


@app.task
def poison(key):
    with Run(key):
        os.kill(os.getpid(), signal.SIGKILL)
