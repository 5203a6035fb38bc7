"""A task that does nothing but leave a byte, so that it can be seen when all have run."""

import os

from umbel import Umbel

app = Umbel("perf", broker=os.environ["PERF_URL"], backend=os.environ["PERF_URL"] if os.environ["PERF_RESULTS"] else None)
done = os.open(os.environ["PERF_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(name="perf.noop")
def noop(number: int) -> None:
    os.write(done, b".")
