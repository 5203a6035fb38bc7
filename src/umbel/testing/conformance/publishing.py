# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about publishing, order, due times and waiting."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from umbel.broker import Broker
from umbel.exceptions import NotSupported
from umbel.testing.conformance.base import BrokerSuite, ends_in_time, ids_of, item, settlement, succeeds_in_child

__all__ = ["PublishingPromises"]


class PublishingPromises(BrokerSuite):
    """What `publish`, `promote`, `wait`, `depth` and `purge` promise."""

    def test_messages_are_delivered_in_the_order_they_were_published(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"a{n}") for n in range(5)])
        broker.publish([item(queue, "b")])
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 10, owner="w", seq=1)) == ["a0", "a1", "a2", "a3", "a4", "b"]

    def test_a_published_message_outlives_its_producer(self, make_broker: Callable[[], Broker], queue: str) -> None:
        producer = make_broker()
        producer.publish([item(queue, "a")])
        producer.close()
        worker = make_broker()
        assert self.total(worker, queue) == (1, 0, 0, 0, 0)
        worker.close()

    def test_a_publish_may_have_a_deadline_of_its_own(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a"), item(queue, "b", due=self.now() + 60)], timeout=1.5)
        assert self.total(broker, queue)[:2] == (1, 1)

    def test_a_message_arrives_byte_for_byte(self, broker: Broker, queue: str) -> None:
        sent = item(queue, "a")
        broker.publish([sent])
        broker.join("w", [queue], lease=60)
        assert self.arrives(broker, broker.fetch(queue, 1, owner="w", seq=1)[0].raw, sent.raw)

    def test_smaller_priority_numbers_are_delivered_first(self, broker: Broker, queue: str) -> None:
        if not broker.features.priorities:
            pytest.skip("this broker has no priorities")
        broker.publish([item(queue, f"p{p}", priority=p) for p in (9, 3, 0, 6)])
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 10, owner="w", seq=1)) == ["p0", "p3", "p6", "p9"]

    def test_one_batch_may_go_to_several_queues(self, broker: Broker, queue: str) -> None:
        other = queue + "-other"
        broker.publish([item(queue, "a"), item(other, "b"), item(queue, "c")])
        assert self.total(broker, queue)[0] == 2
        assert self.total(broker, other)[0] == 1

    def test_a_batch_of_nothing_does_nothing(self, broker: Broker, queue: str) -> None:
        broker.publish([])
        assert broker.settle([]) == []
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    @pytest.mark.parametrize("name", ["a:b", "{tag}", "a{b}c", "blätter-葉", "with space", "a.b*[c]?", "'quoted\""])
    def test_a_queue_may_have_an_odd_name(self, broker: Broker, queue: str, name: str) -> None:
        odd = name + queue
        broker.publish([item(odd, "a"), item(odd, "b", due=self.now() + 60)])
        broker.join("w", [odd], lease=60)
        delivery = broker.fetch(odd, 1, owner="w", seq=1)[0]
        assert self.total(broker, odd) == (0, 1, 1, 0, 0)
        assert broker.settle([settlement(delivery)]) == [True]
        assert broker.purge(odd) == int(broker.features.sees_delayed)

    def test_a_message_of_a_megabyte_is_delivered_whole(self, broker: Broker, queue: str) -> None:
        sent = item(queue, "big", size=1_000_000)
        broker.publish([sent])
        broker.join("w", [queue], lease=60)
        assert self.arrives(broker, broker.fetch(queue, 1, owner="w", seq=1)[0].raw, sent.raw)

    def test_many_threads_may_publish_at_once(self, broker: Broker, queue: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: broker.publish([item(queue, f"{n}-{k}") for k in range(5)]), range(40)))
        assert self.total(broker, queue)[0] == 200

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_may_use_it_though_another_thread_of_its_parent_did_so_at_the_fork(self, broker: Broker, queue: str) -> None:
        over = threading.Event()

        def publish() -> None:
            while not over.is_set():
                broker.publish([item(queue, "a") for _ in range(50)])

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for _ in range(10):
                assert ends_in_time(lambda: broker.depth([queue]))
        finally:
            over.set()
            thread.join()

    @pytest.mark.parametrize("first", [True, False])
    def test_a_due_time_that_is_no_number_is_refused_and_nothing_is_stored(self, broker: Broker, queue: str, first: bool) -> None:
        batch = [item(queue, "a"), item(queue, "never", due=math.nan)]
        with pytest.raises(ValueError, match="due time of never is nan"):
            broker.publish(batch[::-1] if first else batch)
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_what_is_no_transaction_that_it_can_be_part_of_is_refused_and_nothing_is_stored(self, broker: Broker, queue: str) -> None:
        with pytest.raises(NotSupported):
            broker.publish([item(queue, "a")], using=object())
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_a_delayed_message_waits_until_it_is_due(self, broker: Broker, queue: str) -> None:
        due = self.now() + 1
        broker.publish([item(queue, "later", due=due)])
        broker.join("w", [queue], lease=60)
        assert broker.fetch(queue, 1, owner="w", seq=1) == []
        assert broker.promote(queue) == (pytest.approx(due, abs=0.01) if broker.features.sees_delayed else None)
        assert self.total(broker, queue) == (0, 1, 0, 0, 0)
        self.until(lambda: (broker.promote(queue), self.total(broker, queue))[1] == (1, 0, 0, 0, 0))
        assert broker.promote(queue) is None
        assert ids_of(broker.fetch(queue, 1, owner="w", seq=2)) == ["later"]

    def test_a_fetch_promotes_what_is_due_by_itself(self, broker: Broker, queue: str) -> None:
        step = broker.features.due_step
        later, soon = self.now() + 0.2 + 2 * step, self.now() + 0.1 + step
        broker.publish([item(queue, "second", due=later), item(queue, "first", due=soon)])
        self.pass_time(0.3 + 2 * step)
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 5, owner="w", seq=1)) == ["first", "second"]

    def test_a_due_time_in_the_past_means_now(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "old", due=self.now() - 100)])
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 1, owner="w", seq=1)) == ["old"]

    def test_promotion_is_bounded(self, broker: Broker, queue: str) -> None:
        if not broker.features.sees_delayed:
            pytest.skip("this broker's engine promotes by itself")
        broker.publish([item(queue, f"m{n}", due=self.now() + 0.1) for n in range(5)])
        self.pass_time(0.2)
        due = broker.promote(queue, limit=2)
        assert due is not None
        assert due <= self.now()
        assert self.total(broker, queue) == (2, 3, 0, 0, 0)

    def test_a_delayed_message_keeps_its_priority(self, broker: Broker, queue: str) -> None:
        if not broker.features.priorities:
            pytest.skip("this broker has no priorities")
        broker.publish([item(queue, "low", priority=9), item(queue, "high", priority=0, due=self.now() + 0.1)])
        self.pass_time(0.2)
        broker.join("w", [queue], lease=60)
        assert ids_of(broker.fetch(queue, 5, owner="w", seq=1)) == ["high", "low"]

    def test_wait_returns_soon_after_another_broker_published(self, make_broker: Callable[[], Broker], queue: str) -> None:
        waiting, publishing = make_broker(), make_broker()
        waiting.join("w", [queue], lease=60)
        assert waiting.fetch(queue, 1, owner="w", seq=1) == []
        found: list[float] = []

        def work() -> None:
            seq = 1
            while not found:
                waiting.wait("w", [queue], 0.5)
                seq += 1
                if waiting.fetch(queue, 1, owner="w", seq=seq):
                    found.append(time.monotonic())

        thread = threading.Thread(target=work)
        thread.start()
        threading.Event().wait(0.05)  # so that it waits; if it does not yet, the test is only easier
        published = time.monotonic()
        publishing.publish([item(queue, "a")])
        thread.join(10)
        assert found
        assert found[0] - published < 0.2
        waiting.close()
        publishing.close()

    def test_wait_returns_at_once_when_something_is_due(self, broker: Broker, queue: str) -> None:
        broker.join("w", [queue], lease=60)
        broker.publish([item(queue, "soon", due=self.now() + 0.1)])
        self.pass_time(0.15)
        broker.promote(queue)
        started = time.monotonic()
        broker.wait("w", [queue], 5.0)
        assert time.monotonic() - started < 1.0

    def test_wait_ends_by_itself(self, broker: Broker, queue: str) -> None:
        broker.join("w", [queue], lease=60)
        started = time.monotonic()
        broker.wait("w", [queue], 0.1)
        assert time.monotonic() - started < 1.0

    def test_purge_deletes_what_nobody_holds(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}", priority=n) for n in range(4)])
        broker.publish([item(queue, "later", due=self.now() + 60)])
        broker.join("w", [queue], lease=60)
        assert len(broker.fetch(queue, 1, owner="w", seq=1)) == 1
        assert broker.purge(queue) == 3 + broker.features.sees_delayed
        assert self.total(broker, queue) == (0, 0, 1, 0, 0)
        assert broker.purge(queue) == 0

    def test_depth_answers_for_each_queue_that_was_asked_for(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        depths = broker.depth([queue, queue + "-empty"])
        assert [depths[queue].ready, depths[queue + "-empty"].ready] == [1, 0]

    def test_a_broker_may_be_closed_twice(self, make_broker: Callable[[], Broker], queue: str) -> None:
        broker = make_broker()
        broker.open()
        broker.publish([item(queue, "a")])
        broker.close()
        broker.close()

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_parent_and_child_may_both_go_on_after_a_fork(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "before")])

        def child() -> None:
            broker.publish([item(queue, "child")])
            assert self.total(broker, queue)[0] == 2
            broker.close()

        assert succeeds_in_child(child)
        broker.publish([item(queue, "parent")])
        assert self.total(broker, queue)[0] == (3 if broker.features.shared else 2)
