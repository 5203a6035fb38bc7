# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about delayed messages: their order, extreme times, and many who promote at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from umbel.broker import Broker, Verb
from umbel.testing.conformance.base import BrokerSuite, ids_of, item, settlement

__all__ = ["DelayingPromises"]

LAST_YEAR = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


class DelayingPromises(BrokerSuite):
    """What is kept until it is due."""

    def test_messages_of_one_due_time_keep_the_order_in_which_they_were_published(self, broker: Broker, queue: str) -> None:
        due = self.now() + 0.2
        names = [f"m{n * 7919 % 100}" for n in range(30)]  # in no order of their own
        broker.publish([item(queue, name, due=due) for name in names[:20]])
        for name in names[20:]:
            broker.publish([item(queue, name, due=due)])
        broker.join("w", [queue], lease=60)
        self.pass_time(0.3)
        assert self.in_order(broker, ids_of(broker.fetch(queue, 100, owner="w", seq=1))) == self.in_order(broker, names)

    def test_a_retry_waits_with_the_same_order_and_priority_as_what_was_published_delayed(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 1, owner="w", seq=1)[0]
        step = broker.features.due_step
        due = self.now() + 0.2 + step
        broker.publish([item(queue, "first", due=due)])
        assert broker.settle([settlement(held, Verb.RETRY, replacement=item(queue, "again", due=due))]) == [True]
        broker.publish([item(queue, "third", due=due)])
        assert self.total(broker, queue) == (0, 3, 0, 0, 0)
        self.pass_time(0.3 + step)
        names = ids_of(broker.fetch(queue, 10, owner="w", seq=2))
        assert self.in_order(broker, names) == self.in_order(broker, ["first", "again", "third"])

    @staticmethod
    def in_order(broker: Broker, names: list[str]) -> list[str]:
        """Return *names*, sorted if *broker* keeps no order within one step of its delays."""
        return sorted(names) if broker.features.due_step else names

    def test_a_message_never_starts_before_it_is_due(self, broker: Broker, queue: str) -> None:
        broker.join("w", [queue], lease=60)
        dues = {f"m{n}": self.now() + 0.05 + n * 0.0107 for n in range(12)}
        broker.publish([item(queue, name, due=due) for name, due in dues.items()])
        seq, seen = 0, 0
        while seen < len(dues):
            seq += 1
            found = ids_of(broker.fetch(queue, 5, owner="w", seq=seq))
            now = self.now()
            assert [name for name in found if dues[name] > now] == []
            seen += len(found)
            self.pass_time(0.002)

    @pytest.mark.parametrize("due", [LAST_YEAR, 4e9, 1e-9, -(2.0**31), 0.0])
    def test_extreme_due_times_are_kept_or_are_now(self, broker: Broker, queue: str, due: float) -> None:
        broker.publish([item(queue, "soon", due=self.now() + 60), item(queue, "extreme", due=due)])
        ready = due < self.now()
        assert self.total(broker, queue)[:2] == ((1, 1) if ready else (0, 2))
        if broker.features.sees_delayed:
            assert broker.promote(queue) == pytest.approx(self.now() + 60, abs=5)
            assert broker.purge(queue) == 2

    def test_many_who_promote_and_claim_at_once_take_each_message_once(self, make_broker: Callable[[], Broker], queue: str) -> None:
        brokers = [make_broker() for _ in range(2)]
        count = 300
        brokers[0].publish([item(queue, f"m{n}", due=self.now() + 0.1, priority=n % 10) for n in range(count)])
        self.pass_time(0.2)
        taken: list[str] = []
        enough = threading.Event()

        def promote(broker: Broker) -> None:
            while not enough.is_set():
                broker.promote(queue, limit=7)

        def claim(owner: str, broker: Broker) -> None:
            broker.join(owner, [queue], lease=60)
            seq = 0
            while not enough.is_set():
                seq += 1
                taken.extend(ids_of(broker.fetch(queue, 5, owner=owner, seq=seq)))
                if len(taken) >= count:
                    enough.set()

        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(promote, broker) for broker in brokers]
            running += [pool.submit(claim, f"w{n}", brokers[n % 2]) for n in range(4)]
            enough.wait(20)
            enough.set()
            for future in running:
                future.result()
        assert sorted(taken) == sorted(f"m{n}" for n in range(count))
        assert self.total(brokers[0], queue) == (0, 0, count, 0, 0)
        for broker in brokers:
            broker.close()
