"""The tasks of fairness.py, for umbel and for Celery: BENCH_SYSTEM says for which. A record has the process and the side of the task, too.

Its number is the process id * 2^32 + twice the number of the call, and one more at the end.
"""

import os
import time

import ledger
from settings import URL

if os.environ.get("BENCH_SYSTEM", "umbel") == "umbel":
    from umbel import Celery
else:
    from celery import Celery

app = Celery("bench", broker=URL)


@app.task(ignore_result=True)
def work(number, seconds):
    side = (os.getpid() << 32) + number * 2
    ledger.note(side)
    time.sleep(seconds)
    ledger.note(side + 1)
