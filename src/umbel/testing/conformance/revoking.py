# ruff: noqa: D102 - the names are the sentences, the numbers are examples
"""Promises about revoked tasks."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from umbel.broker import Broker
from umbel.testing.conformance.base import BrokerSuite, item

__all__ = ["RevokingPromises"]


class RevokingPromises(BrokerSuite):
    """What `revoke` and `revoked_since` promise. The list is one for all queues, so each test looks from a mark on."""

    def mark_of_claim(self, broker: Broker, queue: str, *, seq: int) -> int:
        """Publish and claim one message, and return the mark that came with it."""
        broker.publish([item(queue, uuid4().hex)])
        (delivery,) = broker.fetch(queue, 1, owner="w", seq=seq)
        return delivery.revocations

    def test_what_is_claimed_after_a_revoke_says_that_there_is_news(self, make_broker: Callable[[], Broker], queue: str) -> None:
        worker, client, task_id = make_broker(), make_broker(), uuid4().hex
        worker.join("w", [queue], lease=60)
        before = self.mark_of_claim(worker, queue, seq=1)
        assert self.mark_of_claim(worker, queue, seq=2) == before
        client.revoke([task_id], ttl=60)
        after = self.mark_of_claim(worker, queue, seq=3)
        assert after != before
        news = worker.revoked_since(before)
        assert [(entry.id, entry.signal) for entry in news.entries] == [(task_id, "")]
        assert news.mark == after
        assert not worker.revoked_since(after).entries
        worker.close()
        client.close()

    def test_a_claim_that_is_repeated_says_what_was_revoked_meanwhile(self, broker: Broker, queue: str) -> None:
        broker.join("w", [queue], lease=60)
        broker.publish([item(queue, "m0")])
        (first,) = broker.fetch(queue, 1, owner="w", seq=1)
        broker.revoke([uuid4().hex], ttl=60)
        (second,) = broker.fetch(queue, 1, owner="w", seq=1)
        assert second.tag == first.tag
        assert second.revocations != first.revocations

    def test_who_comes_later_learns_what_was_revoked_before(self, make_broker: Callable[[], Broker]) -> None:
        first, task_id = make_broker(), uuid4().hex
        first.revoke([task_id], ttl=60, signal="SIGTERM")
        first.close()
        later = make_broker()
        found = [entry for entry in later.revoked_since(0).entries if entry.id == task_id]
        assert [entry.signal for entry in found] == ["SIGTERM"]
        assert found[0].expires == pytest.approx(self.now() + 60, abs=10)
        later.close()

    def test_ten_thousand_ids_are_revoked_in_one_call(self, broker: Broker) -> None:
        ids = [uuid4().hex for _ in range(10_000)]
        before = broker.revoked_since(0).mark
        broker.revoke(ids, ttl=60)
        assert [entry.id for entry in broker.revoked_since(before).entries] == ids

    def test_a_revoked_id_is_forgotten_after_its_time(self, broker: Broker) -> None:
        before = broker.revoked_since(0).mark
        short, long = uuid4().hex, uuid4().hex
        broker.revoke([short], ttl=0.2)
        broker.revoke([long], ttl=60)
        self.pass_time(0.4)
        assert [entry.id for entry in broker.revoked_since(before).entries] == [long]
        broker.revoke([uuid4().hex], ttl=60)
        assert short not in [entry.id for entry in broker.revoked_since(0).entries]

    def test_an_id_that_is_revoked_again_keeps_its_signal_and_the_longer_time(self, broker: Broker) -> None:
        task_id = uuid4().hex
        broker.revoke([task_id], ttl=60, signal="SIGKILL")
        between = broker.revoked_since(0).mark
        broker.revoke([task_id], ttl=0.1)
        self.pass_time(0.3)
        (entry,) = broker.revoked_since(between).entries
        assert (entry.id, entry.signal) == (task_id, "SIGKILL")
        assert entry.expires > self.now() + 30

    def test_a_mark_that_the_store_does_not_know_brings_everything(self, broker: Broker) -> None:
        task_id = uuid4().hex
        broker.revoke([task_id], ttl=60)
        news = broker.revoked_since(2**52)
        assert task_id in [entry.id for entry in news.entries]
        assert news.mark == broker.revoked_since(0).mark
