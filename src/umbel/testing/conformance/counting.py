# ruff: noqa: D102 - the names are the sentences, the numbers are examples
"""Promises about counting: what is carried out is counted in the same step, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from umbel.broker import TALLIES_KEPT, Broker, Delivery, OwnerLost, Settlement, Verb
from umbel.testing.conformance.base import BrokerSuite, item, settlement

__all__ = ["CountingPromises"]


class CountingPromises(BrokerSuite):
    """What `tallies` promises."""

    def claimed(self, broker: Broker, queue: str, count: int) -> list[Delivery]:
        broker.publish([item(queue, f"m{n}") for n in range(count)])
        broker.join("w", [queue], lease=60)
        return broker.fetch(queue, count, owner="w", seq=1)

    def counted(self, broker: Broker, queue: str) -> dict[str, int]:
        """Return how often each tally was counted, in whatever minutes."""
        total = Counter[str]()
        for each in broker.tallies(queue, since=0):
            total[each.tally] += each.count
        return dict(total)

    def test_nothing_is_counted_of_a_queue_that_nobody_uses(self, broker: Broker, queue: str) -> None:
        assert broker.tallies(queue, since=0) == []

    def test_what_is_carried_out_is_counted_in_its_minute(self, broker: Broker, queue: str) -> None:
        held = self.claimed(broker, queue, 3)
        before = self.now()
        assert broker.settle([tallied(each, "a") for each in held]) == [True] * 3
        after = self.now()
        found = broker.tallies(queue, since=0)
        assert [(each.tally, each.count) for each in found] == [("a", 3)]
        assert before // 60 * 60 <= found[0].minute <= after // 60 * 60
        assert found[0].minute % 60 == 0

    def test_a_settlement_without_a_tally_is_not_counted(self, broker: Broker, queue: str) -> None:
        held = self.claimed(broker, queue, 2)
        broker.settle([settlement(held[0]), tallied(held[1], "a")])
        assert self.counted(broker, queue) == {"a": 1}

    def test_the_settlements_of_one_call_may_differ_in_what_is_counted(self, broker: Broker, queue: str) -> None:
        names = ["a b", "a c", "schr\u00e4g 100%", "a b", "a b", "0"]
        held = self.claimed(broker, queue, len(names))
        broker.settle([tallied(each, name) for each, name in zip(held, names, strict=True)])
        assert self.counted(broker, queue) == Counter(names)

    def test_hundreds_of_settlements_in_one_call_are_all_counted(self, broker: Broker, queue: str) -> None:
        held = self.claimed(broker, queue, 450)
        broker.settle([tallied(each, f"t{n % 7}") for n, each in enumerate(held)])
        assert self.counted(broker, queue) == Counter(f"t{n % 7}" for n in range(450))

    @pytest.mark.parametrize("verb", list(Verb))
    def test_every_verb_is_counted_once_and_its_repeat_is_not(self, broker: Broker, queue: str, verb: Verb) -> None:
        (held,) = self.claimed(broker, queue, 1)
        once = tallied(held, "a", verb, queue=queue)
        assert broker.settle([once]) == [True]
        assert broker.settle([once]) == [False]
        assert broker.settle([tallied(held, "late")]) == [False]
        assert self.counted(broker, queue) == {"a": 1}

    def test_each_queue_has_its_own_counts(self, broker: Broker, queue: str) -> None:
        other = queue + "-other"
        (first,) = self.claimed(broker, queue, 1)
        (second,) = self.claimed(broker, other, 1)
        assert broker.settle([tallied(second, "b"), tallied(first, "a", Verb.RETRY, queue=other)]) == [True, True]
        assert self.counted(broker, queue) == {"a": 1}
        assert self.counted(broker, other) == {"b": 1}

    def test_what_rides_on_a_claim_is_counted(self, broker: Broker, queue: str) -> None:
        held = self.claimed(broker, queue, 3)
        riding = [tallied(held[0], "a"), tallied(held[1], "b", Verb.BURY), tallied(held[2], "a", Verb.GIVE_BACK)]
        assert len(broker.fetch(queue, 5, owner="w", seq=2, settle=riding)) == 1
        assert self.counted(broker, queue) == {"a": 2, "b": 1}

    def test_a_claim_that_is_repeated_counts_once(self, broker: Broker, queue: str) -> None:
        held = self.claimed(broker, queue, 2)
        for _ in range(3):  # its reply was lost
            broker.fetch(queue, 0, owner="w", seq=2, settle=[tallied(each, "a") for each in held])
        broker.fetch(queue, 0, owner="w", seq=1, settle=[tallied(each, "a") for each in held])
        broker.settle([tallied(each, "a") for each in held])
        assert self.counted(broker, queue) == {"a": 2}

    def test_a_lost_claim_counts_nothing_and_its_heir_counts_once(self, broker: Broker, queue: str) -> None:
        lost = self.lapsed(broker, queue, claims=2)
        taken = broker.recover(queue, owner="heir", limit=10).deliveries
        assert broker.settle([tallied(each, "late") for each in lost]) == [False, False]
        with pytest.raises(OwnerLost):
            broker.fetch(queue, 1, owner="lost", seq=2, settle=[tallied(each, "late") for each in lost])
        assert broker.settle([tallied(each, "a") for each in taken]) == [True, True]
        assert self.counted(broker, queue) == {"a": 2}

    def test_a_call_that_names_a_claim_twice_counts_it_once(self, broker: Broker, queue: str) -> None:
        (held,) = self.claimed(broker, queue, 1)
        assert broker.settle([tallied(held, "a"), tallied(held, "b")]) == [True, False]
        assert self.counted(broker, queue) == {"a": 1}

    def test_others_see_the_counts_and_add_to_them(self, make_broker: Callable[[], Broker], queue: str) -> None:
        first, second = make_broker(), make_broker()
        (held,) = self.claimed(first, queue, 1)
        first.settle([tallied(held, "a")])
        second.publish([item(queue, "b")])
        second.join("v", [queue], lease=60)
        second.settle([tallied(each, "a") for each in second.fetch(queue, 1, owner="v", seq=1)])
        assert self.counted(first, queue) == self.counted(second, queue) == {"a": 2}
        first.close()
        second.close()

    def test_a_purge_leaves_the_counts_alone(self, broker: Broker, queue: str) -> None:
        (held,) = self.claimed(broker, queue, 1)
        broker.settle([tallied(held, "a")])
        broker.purge(queue)
        assert self.counted(broker, queue) == {"a": 1}

    def test_minutes_that_begin_earlier_are_left_out(self, broker: Broker, queue: str) -> None:
        (held,) = self.claimed(broker, queue, 1)
        broker.settle([tallied(held, "a")])
        (found,) = broker.tallies(queue, since=0)
        assert broker.tallies(queue, since=found.minute) == [found]
        assert broker.tallies(queue, since=found.minute + 0.5) == []
        assert broker.tallies(queue, since=found.minute + 3600) == []

    def test_counts_stay_for_their_time_and_then_vanish(self, broker: Broker, queue: str) -> None:
        if self.timeless:
            pytest.skip("this driver's time cannot be moved")
        broker.join("w", [queue], lease=2 * TALLIES_KEPT)
        for seq, name in enumerate(("first", "second", "third"), start=1):
            broker.publish([item(queue, name)])
            (held,) = broker.fetch(queue, 1, owner="w", seq=seq)
            broker.settle([tallied(held, name)])
            found = broker.tallies(queue, since=0)
            assert [each.tally for each in found] == {"first": ["first"], "second": ["first", "second"], "third": ["third"]}[name]
            assert [each.minute for each in found] == sorted({each.minute for each in found})
            self.pass_time(TALLIES_KEPT - 120 if name == "first" else TALLIES_KEPT + 120)
        assert broker.tallies(queue, since=0) == []


def tallied(delivery: Delivery, tally: str, verb: Verb = Verb.ACK, *, queue: str = "") -> Settlement:
    """Make a settlement that is counted as *tally*."""
    replacement = item(queue, "again") if verb is Verb.RETRY else None
    return replace(settlement(delivery, verb, reason="why", replacement=replacement), tally=tally)
