# ruff: noqa: D102 - the names are the sentences, the numbers are examples
"""Promises about settling: each verb, its once-only effect, and what rides in the same step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from umbel.backend import ResultBackend
from umbel.broker import Broker, Delivery, Verb
from umbel.testing.conformance.backend import record
from umbel.testing.conformance.base import BrokerSuite, ids_of, item, settlement

__all__ = ["SettlingPromises"]


class SettlingPromises(BrokerSuite):
    """What `settle` promises."""

    @pytest.fixture
    def partner(self, broker: Broker) -> ResultBackend | None:  # noqa: ARG002
        """A result backend that *broker* settles with, if there is one."""
        return None

    def claim(self, broker: Broker, queue: str, *ids: str, owner: str = "w") -> list[Delivery]:
        broker.publish([item(queue, task_id) for task_id in ids])
        broker.join(owner, [queue], lease=60)
        return broker.fetch(queue, len(ids), owner=owner, seq=1)

    def test_an_acknowledged_message_is_gone(self, broker: Broker, queue: str) -> None:
        held = self.claim(broker, queue, "a", "b")
        assert broker.settle([settlement(d) for d in held]) == [True, True]
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    @pytest.mark.parametrize("verb", list(Verb))
    def test_a_message_is_settled_once(self, broker: Broker, queue: str, verb: Verb) -> None:
        (held,) = self.claim(broker, queue, "a")
        once = settlement(held, verb, reason="why", replacement=item(queue, "again") if verb is Verb.RETRY else None)
        assert broker.settle([once]) == [True]
        after = self.total(broker, queue)
        assert broker.settle([once]) == [False]
        assert broker.settle([settlement(held)]) == [False]
        assert self.total(broker, queue) == after

    def test_a_repeat_in_one_batch_counts_once(self, broker: Broker, queue: str) -> None:
        (held,) = self.claim(broker, queue, "a")
        assert broker.settle([settlement(held), settlement(held, Verb.GIVE_BACK)]) == [True, False]
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_outcomes_come_in_the_order_of_the_settlements(self, broker: Broker, queue: str) -> None:
        other = queue + "-other"
        first, gone = self.claim(broker, queue, "a", "b")
        (second,) = self.claim(broker, other, "c", owner="v")
        broker.settle([settlement(gone)])
        assert broker.settle([settlement(second), settlement(gone), settlement(first)]) == [True, False, True]

    def test_a_retry_goes_to_the_tail(self, broker: Broker, queue: str) -> None:
        (held,) = self.claim(broker, queue, "a")
        broker.publish([item(queue, "b")])
        assert broker.settle([settlement(held, Verb.RETRY, replacement=item(queue, "a2"))]) == [True]
        assert ids_of(broker.fetch(queue, 5, owner="w", seq=2)) == ["b", "a2"]

    def test_a_retry_may_be_due_later(self, broker: Broker, queue: str) -> None:
        (held,) = self.claim(broker, queue, "a")
        later = item(queue, "a2", due=self.now() + 60)
        assert broker.settle([settlement(held, Verb.RETRY, replacement=later)]) == [True]
        assert self.total(broker, queue) == (0, 1, 0, 0, 0)

    def test_what_is_put_off_waits_until_it_is_due_and_keeps_its_marks_and_its_priority(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a", priority=9), item(queue, "b", priority=9)])
        broker.join("w", [queue], lease=60)
        given, other = broker.fetch(queue, 2, owner="w", seq=1)
        broker.settle([replace(settlement(given, Verb.GIVE_BACK), attempts=2, suspect=True), settlement(other)])
        (held,) = broker.fetch(queue, 1, owner="w", seq=2)
        again = held.raw.replace(b'"tests.add"', b'"tests.sub"')
        assert broker.settle([replace(settlement(held, Verb.DELAY), due=self.now() + 0.3 + broker.features.due_step, raw=again)]) == [True]
        assert self.total(broker, queue) == (0, 1, 0, 0, 0)
        self.until(lambda: (broker.promote(queue), self.total(broker, queue))[1] == (1, 0, 0, 0, 0))
        broker.publish([item(queue, "c")])
        first, second = broker.fetch(queue, 2, owner="w", seq=3)
        if ids_of([first, second]) == ["c", "a"] and not broker.features.gives_back_to_head:
            first, second = second, first  # what was fetched ahead and lay here for too long may have gone back behind it
        assert ids_of([first, second]) == (["c", "a"] if broker.features.priorities else ["a", "c"])
        first, second = sorted((first, second), key=lambda each: ids_of([each]), reverse=True)
        assert (second.attempts, second.suspect) == (2, True)
        assert b'"tests.sub"' in second.raw

    def test_what_is_put_off_to_no_time_is_ready_at_the_tail(self, broker: Broker, queue: str) -> None:
        held, other = self.claim(broker, queue, "a", "b")
        broker.publish([item(queue, "c")])
        broker.settle([settlement(held, Verb.DELAY), settlement(other)])
        assert ids_of(broker.fetch(queue, 9, owner="w", seq=2)) == ["c", "a"]

    def test_what_is_given_back_returns_to_the_head_in_its_order(self, broker: Broker, queue: str) -> None:
        held = self.claim(broker, queue, "a", "b", "c")
        broker.publish([item(queue, "d")])
        assert broker.settle([settlement(d, Verb.GIVE_BACK) for d in held]) == [True] * 3
        assert self.given_back(broker, ids_of(broker.fetch(queue, 5, owner="w", seq=2))) == ["a", "b", "c", "d"]

    def test_many_that_are_given_back_in_one_call_keep_their_order(self, broker: Broker, queue: str) -> None:
        names = [f"m{n:03}" for n in range(450)]
        held = self.claim(broker, queue, *names)
        assert all(broker.settle([settlement(d, Verb.GIVE_BACK) for d in held]))
        assert self.given_back(broker, ids_of(broker.fetch(queue, 450, owner="w", seq=2))) == names

    def test_what_is_given_back_keeps_its_priority(self, broker: Broker, queue: str) -> None:
        if not broker.features.priorities:
            pytest.skip("this broker has no priorities")
        broker.publish([item(queue, "low", priority=9), item(queue, "high", priority=0)])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 2, owner="w", seq=1)
        broker.publish([item(queue, "high2", priority=0), item(queue, "low2", priority=9)])
        assert broker.settle([settlement(d, Verb.GIVE_BACK) for d in held]) == [True, True]
        assert ids_of(broker.fetch(queue, 5, owner="w", seq=2)) == ["high", "high2", "low", "low2"]

    def test_giving_back_rewrites_the_marks(self, broker: Broker, queue: str) -> None:
        (held,) = self.claim(broker, queue, "a")
        assert (held.attempts, held.suspect) == (0, False)
        assert broker.settle([replace(settlement(held, Verb.GIVE_BACK), attempts=2, suspect=True)]) == [True]
        (held,) = broker.fetch(queue, 1, owner="w", seq=2)
        assert (held.attempts, held.suspect) == (2, True)
        assert broker.settle([settlement(held, Verb.GIVE_BACK)]) == [True]
        (held,) = broker.fetch(queue, 1, owner="w", seq=3)
        assert (held.attempts, held.suspect) == (0, False)

    def test_a_purge_leaves_parked_and_dead_alone(self, broker: Broker, queue: str) -> None:
        one, two = self.claim(broker, queue, "a", "b")
        broker.settle([settlement(one, Verb.PARK, reason="t"), settlement(two, Verb.BURY, reason="r")])
        assert broker.purge(queue) == 0
        assert self.total(broker, queue) == (0, 0, 0, 1, 1)

    def test_follow_ups_are_published_with_the_acknowledgement(self, broker: Broker, queue: str) -> None:
        if not broker.features.atomic_settle:
            pytest.skip("this broker cannot")
        (held,) = self.claim(broker, queue, "a")
        other = queue + "-other"
        riding = replace(settlement(held), follow_ups=[item(queue, "next"), item(other, "far", due=self.now() + 60)])
        assert broker.settle([riding]) == [True]
        assert broker.settle([riding]) == [False]
        assert self.total(broker, queue) == (1, 0, 0, 0, 0)
        assert self.total(broker, other) == (0, 1, 0, 0, 0)

    def test_records_are_stored_with_the_acknowledgement(self, broker: Broker, queue: str, partner: ResultBackend | None) -> None:
        if partner is None:
            pytest.skip("this broker has no result backend in its store")
        assert broker.settles_with(partner)
        (held,) = self.claim(broker, queue, "a")
        task_id = f"{queue}-a"
        first = record(task_id, "SUCCESS", "1", fence=held.fence)
        late = record(task_id + "late", "SUCCESS", "2", fence=held.fence)
        assert broker.settle([replace(settlement(held), records=[first])]) == [True]
        assert broker.settle([replace(settlement(held), records=[late])]) == [False]
        assert partner.get([task_id, late.id]) == [first.meta, None]
        partner.forget([task_id])

    def test_a_refused_record_does_not_hold_up_the_acknowledgement(
        self, broker: Broker, queue: str, partner: ResultBackend | None, make_broker: Callable[[], Broker]
    ) -> None:
        if partner is None:
            pytest.skip("this broker has no result backend in its store")
        task_id = f"{queue}-a"
        first = record(task_id, "SUCCESS", "first")
        partner.store([first])
        assert broker.settles_with(partner)
        (held,) = self.claim(broker, queue, "a")
        second = record(task_id, "FAILURE", "second", fence=held.fence)
        assert broker.settle([replace(settlement(held), records=[second])]) == [True]
        assert partner.get([task_id]) == [first.meta]
        other = make_broker()
        assert self.total(other, queue) == (0, 0, 0, 0, 0)
        other.close()
