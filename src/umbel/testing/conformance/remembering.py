# ruff: noqa: D102, PLR2004 - the names are the sentences, the numbers are examples
"""Promises about keys that let a message be stored once."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from umbel.broker import Broker, Item
from umbel.exceptions import NotSupported
from umbel.testing.conformance.base import BrokerSuite, ids_of, item

__all__ = ["RememberingPromises"]


class RememberingPromises(BrokerSuite):
    """What `publish` promises for items with a key (`Item.once`)."""

    @pytest.fixture
    def remembering(self, broker: Broker) -> Broker:
        """Return the broker, if it remembers keys."""
        if not broker.features.once:
            pytest.skip("this broker remembers no keys")
        return broker

    def keyed(self, queue: str, id: str, key: str = "k", seconds: float = 60, **options: float) -> Item:
        """Make an item with a key."""
        return replace(item(queue, id, **options), once=key, once_for=seconds)  # type: ignore[arg-type]

    def taken(self, broker: Broker, queue: str) -> list[str]:
        """Return the ids of all that is ready."""
        broker.join("w", [queue], lease=60)
        return ids_of(broker.fetch(queue, 100, owner="w", seq=1))

    def test_a_broker_that_remembers_no_keys_says_so_and_stores_nothing(self, broker: Broker, queue: str) -> None:
        if broker.features.once:
            pytest.skip("this broker remembers keys")
        with pytest.raises(NotSupported, match="once_key"):
            broker.publish([item(queue, "a"), self.keyed(queue, "b")])
        assert self.total(broker, queue) == (0, 0, 0, 0, 0)

    def test_of_messages_with_one_key_the_first_is_stored(self, remembering: Broker, make_broker: Callable[[], Broker], queue: str) -> None:
        other = make_broker()
        remembering.publish([self.keyed(queue, "a")])
        other.publish([self.keyed(queue, "b")])
        remembering.publish([item(queue, "c"), self.keyed(queue, "d"), self.keyed(queue, "e", "other")])
        other.close()
        assert sorted(self.taken(remembering, queue)) == ["a", "c", "e"]

    def test_of_one_batch_the_first_of_a_key_is_stored(self, remembering: Broker, queue: str) -> None:
        remembering.publish([self.keyed(queue, f"{key}{n}", key) for n in range(3) for key in "xyz"])
        assert self.taken(remembering, queue) == ["x0", "y0", "z0"]

    def test_a_key_is_remembered_for_its_queue_alone(self, remembering: Broker, queue: str) -> None:
        remembering.publish([self.keyed(queue, "a"), self.keyed(queue + "-other", "b")])
        assert self.total(remembering, queue)[0] == self.total(remembering, queue + "-other")[0] == 1

    def test_a_key_is_forgotten_after_its_time(self, remembering: Broker, queue: str) -> None:
        remembering.publish([self.keyed(queue, "a", "short", 0.3), self.keyed(queue, "b", "long", 60)])
        self.pass_time(0.4)
        remembering.publish([self.keyed(queue, "c", "short", 60), self.keyed(queue, "d", "long", 60)])
        remembering.publish([self.keyed(queue, "e", "short", 60)])
        assert sorted(self.taken(remembering, queue)) == ["a", "b", "c"]

    def test_a_key_is_remembered_though_its_message_is_done(self, remembering: Broker, queue: str) -> None:
        remembering.publish([self.keyed(queue, "a")])
        remembering.purge(queue)
        remembering.publish([self.keyed(queue, "b")])
        assert self.total(remembering, queue)[0] == 0

    def test_a_delayed_message_and_one_with_a_priority_may_have_a_key(self, remembering: Broker, queue: str) -> None:
        due = self.now() + 60
        remembering.publish([self.keyed(queue, "a", due=due), self.keyed(queue, "b", "other", priority=9)])
        remembering.publish([self.keyed(queue, "c"), self.keyed(queue, "d", "other", due=due), self.keyed(queue, "e", priority=3)])
        assert self.total(remembering, queue)[:2] == (1, 1)

    @pytest.mark.parametrize("key", ["report@2026-03-29T02:30:00Z", "葉 {x}:'\"%s", "x" * 255])
    def test_a_key_may_be_odd(self, remembering: Broker, queue: str, key: str) -> None:
        remembering.publish([self.keyed(queue, "a", key)])
        remembering.publish([self.keyed(queue, "b", key)])
        assert self.taken(remembering, queue) == ["a"]

    @pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
    def test_a_key_for_no_time_or_for_ever_is_refused_and_nothing_is_stored(self, remembering: Broker, queue: str, seconds: float) -> None:
        with pytest.raises(ValueError, match="number of seconds above 0"):
            remembering.publish([item(queue, "a"), self.keyed(queue, "b", seconds=seconds)])
        assert self.total(remembering, queue) == (0, 0, 0, 0, 0)

    def test_of_many_who_publish_one_key_at_once_one_is_first(self, remembering: Broker, queue: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: remembering.publish([self.keyed(queue, f"{n} {k}", f"k{k}") for k in range(3)]), range(24)))
        assert self.total(remembering, queue)[0] == 3
