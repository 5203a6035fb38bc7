# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about recovery: what becomes of the claims of an owner whose lease lapsed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from umbel.broker import Broker, OwnerLost, Verb
from umbel.testing.conformance.base import LEASE, BrokerSuite, ids_of, item, settlement

__all__ = ["RecoveringPromises"]


class RecoveringPromises(BrokerSuite):
    """What `recover` and `mark_started` promise."""

    def test_nothing_is_recovered_while_leases_hold(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        for owner in ("a", "b"):
            broker.join(owner, [queue], lease=60)
        broker.fetch(queue, 1, owner="a", seq=1)
        done = broker.recover(queue, owner="b", limit=10)
        assert (list(done.deliveries), done.more) == ([], False)

    def test_an_owner_that_has_lapsed_itself_takes_nothing_from_itself(self, broker: Broker, queue: str) -> None:
        (held,) = self.lapsed(broker, queue, claims=1)
        assert not broker.recover(queue, owner="lost", limit=10).deliveries
        assert self.total(broker, queue) == (0, 0, 1, 0, 0)
        assert broker.renew("lost", [queue], lease=60)
        assert broker.settle([settlement(held)]) == [True]

    def test_the_claims_of_a_lapsed_owner_become_the_heirs(self, broker: Broker, queue: str) -> None:
        lost = self.lapsed(broker, queue, claims=3)
        done = broker.recover(queue, owner="heir", limit=10)
        assert sorted(ids_of(done.deliveries)) == ["m0", "m1", "m2"]
        assert not done.more
        assert {d.owner for d in done.deliveries} == {"heir"}
        assert min(d.fence for d in done.deliveries) > max(d.fence for d in lost)
        assert self.total(broker, queue) == (0, 0, 3, 0, 0)
        assert broker.settle([settlement(d) for d in done.deliveries]) == [True] * 3
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_only_a_start_that_was_marked_costs_an_attempt(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=3, started=1)
        done = broker.recover(queue, owner="heir", limit=10)
        marks = {task_id: (d.attempts, d.suspect) for task_id, d in zip(ids_of(done.deliveries), done.deliveries, strict=True)}
        assert marks == {"m0": (1, False), "m1": (0, True), "m2": (0, True)}

    def test_attempts_add_up_over_several_deaths(self, broker: Broker, queue: str) -> None:
        self.needs_leases(broker)
        broker.publish([item(queue, "a")])
        broker.join("heir", [queue], lease=60)
        for death in range(1, 4):
            owner = f"w{death}"
            broker.join(owner, [queue], lease=LEASE)
            (held,) = broker.fetch(queue, 1, owner=owner, seq=1)
            assert held.attempts == death - 1
            assert broker.mark_started(held)
            self.pass_time(LEASE * 1.2)
            (taken,) = broker.recover(queue, owner="heir", limit=1).deliveries
            assert (taken.attempts, taken.suspect) == (death, False)
            assert broker.settle([replace(settlement(taken, Verb.GIVE_BACK), attempts=taken.attempts)]) == [True]

    def test_a_lost_claim_changes_nothing_afterwards(self, broker: Broker, queue: str) -> None:
        lost = self.lapsed(broker, queue, claims=5)
        broker.recover(queue, owner="heir", limit=10)
        before = self.total(broker, queue)
        late = [
            settlement(lost[0]),
            settlement(lost[1], Verb.RETRY, replacement=item(queue, "again")),
            settlement(lost[2], Verb.GIVE_BACK),
            settlement(lost[3], Verb.BURY, reason="late"),
            settlement(lost[4], Verb.PARK, reason="late"),
        ]
        if broker.features.atomic_settle:
            late[0] = replace(late[0], follow_ups=[item(queue, "next")])
        assert broker.settle(late) == [False] * 5
        assert not broker.mark_started(lost[0])
        assert self.total(broker, queue) == before == (0, 0, 5, 0, 0)

    def test_a_reaped_owner_is_refused(self, broker: Broker, queue: str) -> None:
        lost = self.lapsed(broker, queue, claims=1)
        broker.recover(queue, owner="heir", limit=10)
        broker.publish([item(queue, "new")])
        assert broker.renew("lost", [queue], lease=60) is False
        with pytest.raises(OwnerLost):
            broker.fetch(queue, 1, owner="lost", seq=2, settle=[settlement(lost[0])])
        assert self.total(broker, queue) == (1, 0, 1, 0, 0)

    def test_a_recovery_in_steps_fences_the_lost_owner_from_the_first(self, broker: Broker, queue: str) -> None:
        lost = self.lapsed(broker, queue, claims=5)
        first = broker.recover(queue, owner="heir", limit=2)
        assert len(first.deliveries) == 2
        assert first.more
        assert broker.settle([settlement(d) for d in lost]) == [False] * 5
        assert broker.renew("lost", [queue], lease=60) is False
        with pytest.raises(OwnerLost):
            broker.fetch(queue, 1, owner="lost", seq=2)
        taken = ids_of(first.deliveries)
        while True:
            step = broker.recover(queue, owner="heir", limit=2)
            assert len(step.deliveries) <= 2
            taken += ids_of(step.deliveries)
            if not step.more:
                break
        assert sorted(taken) == [f"m{n}" for n in range(5)]
        assert self.total(broker, queue) == (0, 0, 5, 0, 0)

    def test_large_claims_are_recovered_in_one_step_or_several(self, broker: Broker, queue: str) -> None:
        self.needs_leases(broker)
        for n in range(4):  # one by one: each has the whole time of a call
            broker.publish([item(queue, f"m{n}", size=3_000_000)])
        broker.join("lost", [queue], lease=LEASE)
        for seq in range(1, 5):
            broker.fetch(queue, 1, owner="lost", seq=seq)
        self.pass_time(LEASE * 1.2)
        broker.join("heir", [queue], lease=60)
        taken: list[str] = []
        for _ in range(4):
            step = broker.recover(queue, owner="heir", limit=10)
            taken += ids_of(step.deliveries)
            assert step.more == (len(taken) < 4)
            if not step.more:
                break
        assert sorted(taken) == ["m0", "m1", "m2", "m3"]

    def test_another_may_finish_a_recovery(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=3)
        broker.join("second", [queue], lease=60)
        taken = ids_of(broker.recover(queue, owner="heir", limit=1).deliveries)
        taken += ids_of(broker.recover(queue, owner="second", limit=10).deliveries)
        assert sorted(taken) == ["m0", "m1", "m2"]

    def test_what_an_heir_that_dies_took_is_recovered_again(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=2, started=1)
        broker.join("frail", [queue], lease=LEASE)
        assert len(broker.recover(queue, owner="frail", limit=10).deliveries) == 2
        self.pass_time(LEASE * 1.2)
        again = broker.recover(queue, owner="heir", limit=10).deliveries
        # The start of m0 is counted once, however many recoverers die before they settle it.
        assert dict(zip(ids_of(again), [d.attempts for d in again], strict=True)) == {"m0": 1, "m1": 0}

    def test_what_an_heir_that_leaves_took_keeps_what_is_known_of_its_death(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=2, started=1)
        broker.join("frail", [queue], lease=60)
        assert len(broker.recover(queue, owner="frail", limit=10).deliveries) == 2
        broker.leave("frail", [queue])
        again = broker.fetch(queue, 2, owner="heir", seq=1)
        assert [(d.attempts, d.suspect) for d in again] == [(1, False), (0, True)]
        assert ids_of(again) == ["m0", "m1"]

    def test_every_lapsed_owner_is_recovered(self, broker: Broker, queue: str) -> None:
        self.needs_leases(broker)
        broker.publish([item(queue, f"m{n}") for n in range(3)])
        for n in range(3):
            broker.join(f"w{n}", [queue], lease=LEASE)
            broker.fetch(queue, 1, owner=f"w{n}", seq=1)
        self.pass_time(LEASE * 1.2)
        broker.join("heir", [queue], lease=60)
        taken: list[str] = []
        for _ in range(10):
            step = broker.recover(queue, owner="heir", limit=10)
            taken += ids_of(step.deliveries)
            if not step.more:
                break
        assert sorted(taken) == ["m0", "m1", "m2"]

    def test_what_was_recovered_goes_back_to_the_head_in_its_order(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=3)
        broker.publish([item(queue, "new")])
        taken = broker.recover(queue, owner="heir", limit=10).deliveries
        assert broker.settle([replace(settlement(d, Verb.GIVE_BACK), suspect=d.suspect) for d in taken]) == [True] * 3
        again = [d for seq in range(1, 5) for d in broker.fetch(queue, 1, owner="heir", seq=seq)]
        assert ids_of(again) == ["m0", "m1", "m2", "new"]
        assert [d.suspect for d in again] == [True, True, True, False]

    def test_only_an_owner_of_the_queue_recovers(self, broker: Broker, queue: str) -> None:
        self.lapsed(broker, queue, claims=1)
        with pytest.raises(OwnerLost):
            broker.recover(queue, owner="stranger", limit=10)
        assert self.total(broker, queue) == (0, 0, 1, 0, 0)

    def test_marking_a_start_answers_whether_the_claim_is_held(self, broker: Broker, queue: str) -> None:
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        assert broker.mark_started(held) is True
        broker.settle([settlement(held)])
        assert broker.mark_started(held) is False

    def test_a_mark_does_not_outlive_its_claim(self, broker: Broker, queue: str) -> None:
        self.needs_leases(broker)
        broker.publish([item(queue, "a")])
        broker.join("w", [queue], lease=LEASE)
        broker.join("heir", [queue], lease=60)
        (held,) = broker.fetch(queue, 1, owner="w", seq=1)
        assert broker.mark_started(held)
        assert broker.settle([settlement(held, Verb.GIVE_BACK)]) == [True]
        broker.fetch(queue, 1, owner="w", seq=2)
        self.pass_time(LEASE * 1.2)
        (taken,) = broker.recover(queue, owner="heir", limit=1).deliveries
        assert (taken.attempts, taken.suspect) == (0, True)
