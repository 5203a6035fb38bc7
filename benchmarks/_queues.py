"""The queues that are measured, and how each is run."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
APPS = HERE / "peers"
OURS = Path(sys.executable).parent  # umbel is measured on the interpreter that runs the benchmark
PEERS = HERE.parent / ".cache" / "bench-peers"
MANY = 1_000_000  # as many as are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """How one queue is run: one worker, one process that runs tasks, its own defaults, as quiet as its options allow."""

    name: str
    module: str
    environment: str  # a folder of .cache/bench-peers; "" is umbel's own
    worker: str = ""
    slots: str = "1"  # tasks at once in its one process
    stores: bool = True  # does it store results by default?
    bulk: bool = False
    can_store: bool = True  # is it measured with results on, too?
    store: str = ""  # a program of `peers` that makes and drops its store, if that is not Redis
    most: int = 20_000  # tasks of one round: slow ones get fewer, a rate needs no more

    @property
    def bin(self):
        """Where its programs are."""
        return PEERS / self.environment / "bin" if self.environment else OURS

    @property
    def installed(self):
        """Is there an environment that can import it?"""
        return (
            self.python.exists()
            and subprocess.run([self.python, "-c", f"import {self.package}"], capture_output=True, check=False).returncode == 0
        )

    @property
    def python(self):
        """Its interpreter."""
        return self.bin / "python"

    @property
    def package(self):
        """What it imports."""
        other = {"client_app": "redis", "own_client_app": "umbel", "taskiq_app": "taskiq_redis"}
        return other.get(self.module, self.module.removesuffix("_app"))

    def command(self):
        """The command line of its worker."""
        program, *rest = self.worker.split()
        return [str(self.bin / program), *rest]


QUEUES = (
    Queue(
        name="umbel",
        module="umbel_app",
        environment="",
        worker="umbel -A umbel_app worker -P prefork -c 1",
        stores=False,
        bulk=True,
        most=MANY,
    ),
    Queue(name="celery", module="celery_app", environment="main", worker="celery -A celery_app worker -c 1", stores=False, most=8_000),
    Queue(
        name="dramatiq",
        module="dramatiq_app",
        environment="main",
        worker="dramatiq dramatiq_app -p 1",
        slots="8 threads",
        stores=False,
        most=15_000,
    ),
    Queue(name="huey", module="huey_app", environment="main", worker="huey_consumer huey_app.huey -q -k process -w 1", most=10_000),
    Queue(
        name="huey-thread", module="huey_app", environment="main", worker="huey_consumer huey_app.huey -q", slots="1 thread", most=10_000
    ),
    Queue(name="rq", module="rq_app", environment="main", worker="rq worker -q default", slots="1 (a fork each)", bulk=True, most=150),
    Queue(
        name="rq-simple",
        module="rq_app",
        environment="main",
        worker="rq worker -q -w rq.worker.SimpleWorker default",
        bulk=True,
        most=600,
    ),
    Queue(
        name="arq",
        module="arq_app",
        environment="arq",
        worker="arq arq_app.WorkerSettings --custom-log-dict arq_app.SILENT",
        slots="10 coroutines",
        most=1_500,
    ),
    Queue(name="saq", module="saq_app", environment="main", worker="saq saq_app.settings --quiet", slots="10 coroutines", most=8_000),
    Queue(
        name="taskiq",
        module="taskiq_app",
        environment="main",
        worker="taskiq worker taskiq_app:broker --workers 1 --log-level WARNING",
        slots="100 coroutines",
        stores=False,
        most=10_000,
    ),
    Queue(
        name="streaq",
        module="streaq_app",
        environment="main",
        worker="streaq run streaq_app:worker",
        slots="16 coroutines",
        bulk=True,
        most=4_000,
    ),
    Queue(name="ardiq", module="ardiq_app", environment="ardiq", worker="ardiq run ardiq_app:app -q", slots="16 coroutines", bulk=True),
    Queue(
        name="procrastinate",
        module="procrastinate_app",
        environment="procrastinate",
        worker="procrastinate --log-level=warning -a procrastinate_app.app worker",
        slots="1 coroutine",
        stores=False,
        can_store=False,
        store="procrastinate_store.py",
        bulk=True,
        most=2_000,
    ),
    Queue(
        name="bare-loop",
        module="umbel_app",
        environment="",
        worker="python bare_loop.py",
        stores=False,
        can_store=False,
        bulk=True,
        most=MANY,
    ),
)
FLOOR = QUEUES[-1]
CLIENT = Queue(name="bare client", module="client_app", environment="", bulk=True)
OWN_CLIENT = Queue(name="own client", module="own_client_app", environment="")
