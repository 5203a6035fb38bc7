# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about owners, claims and idempotent fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from umbel.broker import Broker, OwnerLost, Settlement, Verb
from umbel.testing.conformance.base import LEASE, BrokerSuite, ids_of, item, settlement

__all__ = ["ClaimingPromises"]


class ClaimingPromises(BrokerSuite):
    """What `join`, `renew`, `leave` and `fetch` promise."""

    def test_a_message_is_claimed_by_one_owner_only(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(4)])
        broker.join("a", [queue], lease=60)
        broker.join("b", [queue], lease=60)
        first, second = broker.fetch(queue, 2, owner="a", seq=1), broker.fetch(queue, 9, owner="b", seq=1)
        assert ids_of(first) + ids_of(second) == ["m0", "m1", "m2", "m3"]
        assert self.total(broker, queue) == (0, 0, 4, 0, 0)

    def test_threads_that_fetch_at_once_never_share_a_message(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(200)])

        def drain(owner: str) -> list[str]:
            broker.join(owner, [queue], lease=60)
            taken: list[str] = []
            seq = 0
            while found := broker.fetch(queue, 7, owner=owner, seq=(seq := seq + 1)):
                taken += ids_of(found)
            return taken

        with ThreadPoolExecutor(6) as pool:
            taken = [task_id for part in pool.map(drain, "abcdef") for task_id in part]
        assert sorted(taken) == sorted(f"m{n}" for n in range(200))

    def test_two_brokers_of_one_store_never_share_a_message(self, make_broker: Callable[[], Broker], queue: str) -> None:
        brokers = [make_broker(), make_broker()]
        brokers[0].publish([item(queue, f"m{n}") for n in range(50)])
        taken: list[str] = []
        for n, broker in enumerate(brokers):
            broker.join(f"w{n}", [queue], lease=60)
            taken += ids_of(broker.fetch(queue, 25, owner=f"w{n}", seq=1))
        assert sorted(taken) == sorted(f"m{n}" for n in range(50))
        for broker in brokers:
            broker.close()

    def test_a_fetch_never_gives_more_than_it_was_asked_for(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(5)])
        broker.join("w", [queue], lease=60)
        assert len(broker.fetch(queue, 3, owner="w", seq=1)) == 3
        assert len(broker.fetch(queue, 3, owner="w", seq=2)) == 2
        assert broker.fetch(queue, 3, owner="w", seq=3) == []

    def test_a_fetch_repeated_with_its_number_returns_the_same(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(4)])
        broker.join("w", [queue], lease=60)
        first = broker.fetch(queue, 2, owner="w", seq=1)
        repeated = broker.fetch(queue, 2, owner="w", seq=1)
        assert [d.tag for d in repeated] == [d.tag for d in first]
        assert ids_of(repeated) == ids_of(first) == ["m0", "m1"]
        assert self.total(broker, queue) == (2, 0, 2, 0, 0)
        assert broker.settle([settlement(d) for d in repeated]) == [True, True]

    def test_large_messages_come_in_one_claim_or_several_and_a_repeat_gives_the_same(self, broker: Broker, queue: str) -> None:
        for n in range(5):  # one by one: each has the whole time of a call
            broker.publish([item(queue, f"m{n}", size=3_000_000)])
        broker.join("w", [queue], lease=60)
        taken: list[str] = []
        for seq in range(1, 6):
            found = ids_of(broker.fetch(queue, 5, owner="w", seq=seq))
            assert ids_of(broker.fetch(queue, 5, owner="w", seq=seq)) == found
            assert found or len(taken) == 5
            taken += found
        if not broker.features.gives_back_to_head:  # what waited here for too long went back, and came again behind others
            taken.sort()
        assert taken == [f"m{n}" for n in range(5)]
        broker.leave("w", [queue])
        broker.join("next", [queue], lease=60)
        (first,) = ids_of(broker.fetch(queue, 1, owner="next", seq=1))
        assert first == "m0" or not broker.features.gives_back_to_head
        assert self.total(broker, queue) == (4, 0, 1, 0, 0)

    def test_a_copy_of_an_older_fetch_that_comes_late_claims_nothing(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(4)])
        broker.join("w", [queue], lease=60)
        held = [broker.fetch(queue, 1, owner="w", seq=seq)[0] for seq in (1, 2)]
        broker.fetch(queue, 1, owner="w", seq=1)
        assert self.total(broker, queue) == (2, 0, 2, 0, 0)
        assert broker.settle([settlement(d, Verb.GIVE_BACK) for d in held]) == [True, True]
        assert self.given_back(broker, ids_of(broker.fetch(queue, 4, owner="w", seq=3))) == ["m0", "m1", "m2", "m3"]

    def test_settlements_that_ride_with_a_repeated_fetch_count_once(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(3)])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 1, owner="w", seq=1)[0]
        riding = [settlement(held, Verb.RETRY, replacement=item(queue, "again"))]
        first = broker.fetch(queue, 1, owner="w", seq=2, settle=riding)
        repeated = broker.fetch(queue, 1, owner="w", seq=2, settle=riding)
        assert ids_of(repeated) == ids_of(first) == ["m1"]
        assert self.total(broker, queue) == (2, 0, 1, 0, 0)

    def test_a_fetch_of_nothing_only_settles(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a"), item(queue, "b")])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 1, owner="w", seq=1)[0]
        assert broker.fetch(queue, 0, owner="w", seq=2, settle=[settlement(held)]) == []
        assert self.total(broker, queue) == (1, 0, 0, 0, 0)
        assert ids_of(broker.fetch(queue, 1, owner="w", seq=3)) == ["b"]

    def test_settlements_ride_before_the_claim_of_the_same_fetch(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a"), item(queue, "b")])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 1, owner="w", seq=1)[0]
        back = settlement(held, Verb.GIVE_BACK)
        assert self.given_back(broker, ids_of(broker.fetch(queue, 2, owner="w", seq=2, settle=[back]))) == ["a", "b"]

    def test_fences_grow_with_every_claim(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=60)
        fences = []
        for seq in range(1, 4):
            held = broker.fetch(queue, 1, owner="w", seq=seq)[0]
            fences.append(held.fence)
            broker.settle([settlement(held, Verb.GIVE_BACK)])
        assert 0 < fences[0] < fences[1] < fences[2]

    def test_a_stranger_is_refused(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        with pytest.raises(OwnerLost):
            broker.fetch(queue, 1, owner="stranger", seq=1)
        assert broker.renew("stranger", [queue], lease=60) is False
        assert self.total(broker, queue) == (1, 0, 0, 0, 0)

    def test_renewing_keeps_the_claims(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=LEASE)
        broker.join("heir", [queue], lease=60)
        held = broker.fetch(queue, 1, owner="w", seq=1)[0]
        for _ in range(3):
            self.pass_time(LEASE / 2)
            assert broker.renew("w", [queue], lease=LEASE) is True
        assert list(broker.recover(queue, owner="heir", limit=10).deliveries) == []
        assert broker.settle([settlement(held)]) == [True]

    def test_an_owner_that_lapsed_but_was_not_reaped_is_revived_by_renewing(self, broker: Broker, queue: str) -> None:
        held = self.lapsed(broker, queue, claims=1)[0]
        assert broker.renew("lost", [queue], lease=60) is True
        assert list(broker.recover(queue, owner="heir", limit=10).deliveries) == []
        assert broker.settle([settlement(held)]) == [True]

    def test_renewing_answers_false_if_one_of_the_queues_lost_the_owner(self, broker: Broker, queue: str) -> None:
        broker.join("w", [queue], lease=60)
        assert broker.renew("w", [queue, queue + "-other"], lease=60) is False
        assert broker.renew("w", [queue], lease=60) is True

    def test_who_leaves_gives_its_claims_back_in_order(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, f"m{n}") for n in range(4)])
        broker.join("w", [queue], lease=60)
        held = broker.fetch(queue, 3, owner="w", seq=1)
        broker.leave("w", [queue])
        assert self.total(broker, queue) == (4, 0, 0, 0, 0)
        assert broker.settle([settlement(held[0])]) == [False]
        with pytest.raises(OwnerLost):
            broker.fetch(queue, 1, owner="w", seq=2)
        broker.join("next", [queue], lease=60)
        again = broker.fetch(queue, 4, owner="next", seq=1)
        assert self.given_back(broker, ids_of(again)) == ["m0", "m1", "m2", "m3"]
        assert [(d.attempts, d.suspect) for d in again] == [(0, False)] * 4

    def test_leaving_a_queue_that_was_never_joined_does_nothing(self, broker: Broker, queue: str) -> None:
        broker.leave("w", [queue])
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_owners_of_one_queue_are_strangers_to_another(self, broker: Broker, queue: str) -> None:
        other = queue + "-other"
        broker.publish([item(queue, "a"), item(other, "b")])
        broker.join("w", [queue, other], lease=60)
        assert ids_of(broker.fetch(queue, 5, owner="w", seq=1)) == ["a"]
        assert ids_of(broker.fetch(other, 5, owner="w", seq=1)) == ["b"]
        broker.leave("w", [queue])
        assert broker.renew("w", [other], lease=60) is True

    def test_publishing_while_others_claim_loses_nothing(self, broker: Broker, queue: str) -> None:
        done = threading.Event()
        taken: list[str] = []

        def consume() -> None:
            broker.join("w", [queue], lease=60)
            seq, settle = 0, list[Settlement]()
            while not (done.is_set() and len(taken) >= 100) and seq < 5000:
                seq += 1
                found = broker.fetch(queue, 8, owner="w", seq=seq, settle=settle)
                settle = [settlement(d) for d in found]
                taken.extend(ids_of(found))
                if not found:
                    broker.wait("w", [queue], 0.05)
            broker.settle(settle)

        thread = threading.Thread(target=consume)
        thread.start()
        for n in range(0, 100, 5):
            broker.publish([item(queue, f"m{k}") for k in range(n, n + 5)])
        done.set()
        thread.join(20)
        assert sorted(taken) == sorted(f"m{n}" for n in range(100))
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)
