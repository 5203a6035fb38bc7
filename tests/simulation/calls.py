"""What users call, beside a simple reference: tasks of several kinds, workers that are started, stopped and killed."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from tests.processes import wait_for

from umbel import Umbel
from umbel.exceptions import Ignore, Reject
from umbel.testing import FaultyBroker
from umbel.worker.worker import Worker

LEASE = 0.8  # seconds
KINDS = ["returns", "fails", "retries", "ignores", "rejects"]
ENDS = {"returns": "SUCCESS", "fails": "FAILURE", "retries": "SUCCESS", "ignores": "PENDING", "rejects": "FAILURE"}


@dataclass
class Sent:
    """One call that returned."""

    kind: str
    times: int  # how often its function is called if nothing dies


def app_on(url: str, prefix: str, folder: Path, schema: str = "umbel") -> Umbel:
    app = Umbel("calls", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        worker_lease=LEASE, worker_lease_renewal=LEASE / 4, worker_hijack_root_logger=False,
        broker_transport_options={"global_keyprefix": prefix, "schema": schema},
        result_backend_transport_options={"global_keyprefix": prefix, "schema": schema},
    )  # fmt: skip

    @app.task(name="act", bind=True, max_retries=10)
    def act(self, kind: str, retries: int) -> str:
        with (folder / "ledger").open("ab", buffering=0) as ledger:
            ledger.write(f"{self.request.id}\n".encode())
        if kind == "retries" and self.request.retries < retries:
            raise self.retry(countdown=0.02)
        if kind == "fails":
            raise ValueError(kind)
        if kind == "ignores":
            raise Ignore
        if kind == "rejects":
            raise Reject(kind)
        return kind

    return app


class CallsMachine(RuleBasedStateMachine):
    """Producers in this process, one worker in another; its broker refuses calls and loses replies by chance."""

    def __init__(self, app: Umbel, folder: Path) -> None:
        super().__init__()
        self.app, self.folder = app, folder
        self.sent: dict[str, Sent] = {}
        self.worker = 0
        self.kills = 0

    @rule(kind=st.sampled_from(KINDS), retries=st.integers(0, 2), countdown=st.sampled_from([None, 0.05, 0.2]), urgent=st.booleans())
    def send(self, kind, retries, countdown, urgent):
        result = self.app.tasks["act"].apply_async((kind, retries), countdown=countdown, priority=0 if urgent else 6)
        self.sent[result.id] = Sent(kind, 1 + retries * (kind == "retries"))

    @rule(count=st.integers(1, 30))
    def send_many(self, count):
        for result in self.app.tasks["act"].delay_many([(("returns", 0), {})] * count):
            self.sent[result.id] = Sent("returns", 1)

    @precondition(lambda self: not self.worker)
    @rule(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.05, 0.2]))
    def start(self, seed, rate):
        self.app.broker.close()
        self.app.backend.close()
        self.worker = os.fork()
        if self.worker == 0:
            self.work(seed, rate)

    def work(self, seed, rate):
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120)
            os.environ["C_FORCE_ROOT"] = "1"
            self.app.wrap_broker(
                lambda broker: FaultyBroker.seeded(broker, seed, rate=rate, methods=["fetch", "settle", "renew", "recover"])
            )
            worker = Worker(self.app, hostname="calls@here", pool="solo", loglevel="CRITICAL", quiet=True)
            worker._keeper = lambda lease: None
            code = worker.run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    @precondition(lambda self: self.worker)
    @rule(warm=st.booleans())
    def end(self, warm):
        os.kill(self.worker, signal.SIGTERM if warm else signal.SIGKILL)
        status = os.waitpid(self.worker, 0)[1]
        assert not warm or os.waitstatus_to_exitcode(status) in {0, -signal.SIGTERM}, "a warm stop ends well"
        self.kills += os.waitstatus_to_exitcode(status) != 0
        self.worker = 0

    @precondition(lambda self: self.worker and self.sent)
    @rule()
    def some_are_done(self):
        wait_for(lambda: set(self.sent) & set(self.ran()), 30)

    def ran(self) -> Counter[str]:
        path = self.folder / "ledger"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def teardown(self):
        """A worker that nothing disturbs does what is left; then every result is what the reference says."""
        try:
            if self.worker:
                self.end(warm=False)
            if self.sent:
                self.start(0, 0.0)
                wait_for(self.all_is_settled, 60, lambda: f"{self.app.broker.depth(['celery'])}, ran {len(self.ran())}")
                self.end(warm=True)
                self.results_are_right()
        finally:
            if self.worker:
                self.end(warm=False)
            self.app.close()

    def all_is_settled(self) -> bool:
        assert os.waitpid(self.worker, os.WNOHANG) == (0, 0), "the worker has ended"
        depth = self.app.broker.depth(["celery"])["celery"]
        return not (depth.ready or depth.delayed or depth.claimed)

    def results_are_right(self):
        ran = self.ran()
        for task_id, sent in self.sent.items():
            assert sent.times <= ran[task_id] <= sent.times + self.kills, f"{sent} ran {ran[task_id]} times, with {self.kills} kills"
            state = self.app.AsyncResult(task_id).state
            assert state == ENDS[sent.kind], f"{sent} is {state}"
        dead = self.app.broker.depth(["celery"])["celery"].dead
        assert dead == sum(sent.kind == "rejects" for sent in self.sent.values())
        assert set(ran) <= set(self.sent)
