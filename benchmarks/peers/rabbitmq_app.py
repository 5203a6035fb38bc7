"""One task, as an app of umbel or of Celery, on RabbitMQ with quorum queues and late acknowledgements."""

import os
import time

if os.environ["BENCH_QUEUE"] == "umbel":
    from umbel import Celery
else:
    from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(task_ignore_result=True, task_acks_late=True, task_default_queue_type="quorum", worker_concurrency=1)
if os.environ.get("BENCH_PREFETCH"):
    app.conf.worker_prefetch_multiplier = int(os.environ["BENCH_PREFETCH"])
ledger = os.open(os.environ["BENCH_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task
def note(number, sent=0.0):
    os.write(ledger, f"{time.time_ns()} {number} {sent}\n".encode())
