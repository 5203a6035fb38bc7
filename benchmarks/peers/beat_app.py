"""What `benchmarks/beat.py` lets run: an app without a periodic task of its own, and one for Celery with as many as BENCH_ENTRIES says."""

import os

ENTRIES = int(os.environ.get("BENCH_ENTRIES", "0"))

if ENTRIES:
    from celery import Celery

    app = Celery("bench", broker=os.environ["BENCH_URL"])
    app.conf.beat_schedule = {f"e{n}": {"task": "bench.nothing", "schedule": 1.0} for n in range(ENTRIES)}
else:
    from umbel import Umbel

    app = Umbel("bench", broker=os.environ["BENCH_URL"])
