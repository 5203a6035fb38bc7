"""Which node of a cluster has which slot, as the nodes say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from umbel.drivers.redis.addresses import Address
from umbel.exceptions import BrokerUnavailable

__all__ = ["Slots"]


class Slots:
    """A table that is asked for when it is needed, and again after a node could not be reached.

    There is no lock: whoever finds it stale asks, and puts a whole new table in its place.
    """

    def __init__(self, known: Sequence[Address]) -> None:
        self._known = list(known)  # nodes to ask, the one that answered last first
        self._owners: list[Address | None] = []

    def forget(self) -> None:
        """Ask again before the next use: a node is gone, or somebody else has its slots."""
        self._owners = []

    def moved(self, slot: int, owner: Address) -> None:
        """Note what a node said of one slot."""
        if self._owners:
            self._owners[slot] = owner

    def owner(self, key: str, ask: Callable[[Address], Any]) -> Address:
        """Return which node has *key*; *ask* sends `CLUSTER SLOTS` to a node.

        Raises:
            BrokerUnavailable: no node answers, or nobody has its slot.
        """
        owners = self._owners or self._learn(ask)
        slot = key_slot(key.encode())
        found = owners[slot]
        if found is None:
            self.forget()
            raise BrokerUnavailable(f"No node of the cluster has the slot {slot} of {key!r}. Look at it with redis-cli --cluster check.")
        return found

    def _learn(self, ask: Callable[[Address], Any]) -> list[Address | None]:
        failed: BrokerUnavailable | None = None
        for address in list(self._known):
            try:
                ranges = ask(address)
            except BrokerUnavailable as exc:
                failed = failed or exc
                continue
            owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
            for first, last, (host, port, *_), *_ in ranges:
                # A node that does not know its own name yet says none, and means: the one that you have asked.
                owners[first : last + 1] = [((host or b"").decode() or address[0], int(port))] * (last + 1 - first)
            others = {owner for owner in owners if owner} | set(self._known)
            self._known, self._owners = [address, *sorted(others - {address})], owners
            return owners
        assert failed is not None, "a URL names one node at least"
        raise failed
