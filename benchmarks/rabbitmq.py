"""umbel beside Celery on RabbitMQ: how fast a worker of one process drains no-op tasks, and how soon an idle one starts a task.

The server is a private one; queues are quorum queues, messages persistent, acknowledgements late, for both. Each task appends its time to
a file; the clock runs from the first record to the last. Rounds are interleaved; the result is the median. Celery is measured with its
default prefetch and with one that is as good as it gets for tasks that do nothing (128).
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from _harness import arguments, finish, machine  # noqa: E402
from tests.compat.celery_env import celery_python  # noqa: E402
from tests.rabbitmq import PrivateRabbit, delete_queues  # noqa: E402

PEERS = ROOT / "benchmarks" / "peers"
LIMIT = 120  # seconds for one drain or one start
CASES = {"umbel": ("umbel", ""), "celery": ("celery", ""), "celery, prefetch 128": ("celery", "128")}
FILL = "from rabbitmq_app import note\nfor n in range({count}): note.delay(n)"
FILL_MANY = (
    "from rabbitmq_app import note\nfor start in range(0, {count}, 500): note.delay_many([((n,), {{}}) for n in range(start, start + 500)])"
)
ASK = """
import time
from rabbitmq_app import note
note.delay(-1); time.sleep(1)
for n in range({count}): note.delay(n, time.time()); time.sleep(0.05)
"""


class Stage:
    """An empty server, and programs of one library."""

    def __init__(self, case, server, folder):
        queue, prefetch = CASES[case]
        self.python = sys.executable if queue == "umbel" else str(celery_python())
        self.module, self.server = queue, server
        self.ledger = Path(folder) / "ledger"
        self.env = {
            **os.environ, "BENCH_QUEUE": queue, "BENCH_URL": server.url, "BENCH_LEDGER": str(self.ledger), "BENCH_PREFETCH": prefetch,
            "PYTHONPATH": str(PEERS), "C_FORCE_ROOT": "1",
        }  # fmt: skip

    def produce(self, code):
        subprocess.run([self.python, "-c", code], env=self.env, check=True, timeout=LIMIT, cwd=PEERS)

    @contextlib.contextmanager
    def worker(self):
        command = [self.python, "-m", self.module, "-A", "rabbitmq_app", "worker", "-l", "WARNING", "-c", "1"]
        process = subprocess.Popen(command, env=self.env, cwd=PEERS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def records(self):
        lines = self.ledger.read_text().split("\n")[:-1] if self.ledger.exists() else []  # the last may be half written
        return [(int(stamp), int(number), float(sent)) for stamp, number, sent in (line.split() for line in lines) if int(number) >= 0]

    def await_records(self, count):
        deadline = time.monotonic() + LIMIT
        while (found := self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0) < count:  # to parse would take from both
            if time.monotonic() > deadline:
                print(f"only {found} of {count} ran within {LIMIT} s")
                break
            time.sleep(0.1)


def cleared(server):
    """Delete all queues, so that no case pays for another."""
    delete_queues(server.url, *server.ctl("list_queues", "--no-table-headers", "name").split())


def drain(stage, count):
    """Return tasks per second."""
    stage.produce((FILL_MANY if stage.module == "umbel" else FILL).format(count=count))
    with stage.worker():
        stage.await_records(count)
    found = stage.records()
    seconds = (max(stamp for stamp, *_ in found) - min(stamp for stamp, *_ in found)) / 1e9
    return (len({number for _, number, _ in found}) - 1) / seconds


def latency(stage, count):
    """Return the median in milliseconds from before the call until the task runs, on an idle worker."""
    with stage.worker():
        stage.produce(ASK.format(count=count))
        stage.await_records(count)
    return statistics.median(stamp / 1e6 - sent * 1e3 for stamp, _, sent in stage.records())


def main():
    parser = arguments(__doc__.splitlines()[0], rounds=3, count=20_000)
    options = parser.parse_args()
    rates = {case: [] for case in CASES}
    waits = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder, contextlib.closing(PrivateRabbit(Path(folder) / "rabbit")) as server:
        server.start()
        for number in range(1, options.rounds + 1):
            for case in CASES:
                count = options.count if case == "umbel" else options.count // 4
                for kind, measure, size in ((rates, drain, count), (waits, latency, 100)):
                    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as place:
                        kind[case].append(measure(Stage(case, server, place), size))
                    cleared(server)
                print(f"round {number}: {case}: {rates[case][-1]:,.0f} tasks/s, starts after {waits[case][-1]:.1f} ms", flush=True)
    medians = {case: {"rate": statistics.median(rates[case]), "wait_ms": statistics.median(waits[case])} for case in CASES}
    for case, found in medians.items():
        ratio = medians["umbel"]["rate"] / found["rate"]
        print(f"{case:22} {found['rate']:8,.0f}/s   umbel is {ratio:4.1f} x   idle worker starts after {found['wait_ms']:.1f} ms")
    finish({"benchmark": "rabbitmq", "machine": machine(), "rates": rates, "waits_ms": waits, "medians": medians}, options)


if __name__ == "__main__":
    main()
