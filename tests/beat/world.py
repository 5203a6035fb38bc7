"""Schedulers that a test steps by hand, with a clock that it holds."""

from collections import Counter
from datetime import UTC, datetime

from umbel import Umbel
from umbel.beat.scheduler import LeaseScheduler
from umbel.drivers.memory import MemoryBroker, MemoryLeases, MemorySchedules
from umbel.ids import uuid
from umbel.testing.clock import FakeClock
from umbel.wire.message import decode

START = datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()


class World:
    """An app, a store, and schedulers that are stepped by hand."""

    def __init__(self, **entries):
        self.clock = FakeClock(START)
        self.url = f"memory://{uuid()}"
        self.app = Umbel("beat", broker=self.url, result_backend=self.url, set_as_current=False)
        self.broker = MemoryBroker(self.url, clock=self.clock)
        self.app._broker.get()
        self.app._broker.wrap(lambda _: self.broker)
        self.entries = {name: {"task": f"tasks.{name}", **said} for name, said in entries.items()}
        self.headers, self.seen = [], Counter()
        self.store = self.open_store()

    def open_store(self):
        return MemorySchedules(self.url, clock=self.clock)

    def scheduler(self, holder="one"):
        return LeaseScheduler(
            self.app, leases=MemoryLeases(self.url, clock=self.clock), store=self.open_store(), configured=self.entries,
            holder=holder, clock=self.clock,
        )  # fmt: skip

    def sent(self):
        """The slots of all messages so far, each as often as it was sent."""
        self.broker.join("reader", ["celery"], lease=1e9)
        seq = getattr(self, "_seq", 0)
        while True:
            seq += 1
            found = self.broker.fetch("celery", 1000, owner="reader", seq=seq)
            if not found:
                break
            self.headers += [decode(each.raw).headers for each in found]
            self.seen.update(each["umbel_slot"] for each in self.headers[-len(found) :])
        self._seq = seq
        return self.seen

    def run(self, seconds, *schedulers, step=0.25, between=None):
        for _ in range(round(seconds / step)):
            for each in schedulers:
                each.round()
            self.clock.advance(step)
            if between:
                between()


def at(seconds, name="tick"):
    return f"{name}@{datetime.fromtimestamp(START + seconds, UTC).isoformat().removesuffix('+00:00')}Z"
