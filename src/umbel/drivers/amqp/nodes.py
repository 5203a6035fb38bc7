"""The nodes of one RabbitMQ: who connects takes one of them that answers."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from umbel.drivers.amqp.address import Address, address_of
from umbel.drivers.amqp.connection import Connection
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured

__all__ = ["Nodes", "nodes_of"]

STRATEGIES = ("round-robin", "shuffle")
BETWEEN = re.compile(r";(?=[a-z]+://)")


class Nodes:
    """Where a broker is.

    Args:
        addresses: of its nodes.
        shuffle: take any of them first, and not the one that was taken last.
    """

    def __init__(self, addresses: list[Address], *, shuffle: bool) -> None:
        self._addresses, self._shuffle, self._first = addresses, shuffle, 0

    @property
    def heartbeat(self) -> float:
        """Seconds of silence after which a connection is taken for dead."""
        return self._addresses[0].heartbeat

    @property
    def shown(self) -> str:
        """As people may read it."""
        return ", ".join(address.shown for address in self._addresses)

    def connect(self, *, name: str, deadline: float, on_tick: Callable[[], None] | None = None) -> Connection:
        """Connect to the first node that answers. *deadline* is for all of them: each has its share of the time that is left.

        Raises:
            BrokerUnavailable: none answers in time, or one refuses: they are one broker, and all would.
        """
        order = [*range(self._first, len(self._addresses)), *range(self._first)]
        if self._shuffle:
            random.shuffle(order)
        failed: list[str] = []
        for left, number in zip(range(len(order), 0, -1), order, strict=True):
            now = time.monotonic()
            try:
                made = Connection(self._addresses[number], name=name, deadline=now + (deadline - now) / left, on_tick=on_tick)
            except BrokerUnavailable as exc:
                if exc.refused or len(order) == 1:
                    raise
                failed.append(str(exc))
            else:
                self._first = number
                return made
        raise BrokerUnavailable(f"No node of RabbitMQ answers. {' '.join(failed)}", unreachable=True)


def nodes_of(url: str, options: Mapping[str, Any]) -> Nodes:
    """Read *url*, which may be several with `;` between them, and what *options* say.

    Raises:
        ImproperlyConfigured: a part of it is wrong.
    """
    strategy = options.get("failover_strategy") or STRATEGIES[0]
    if strategy not in STRATEGIES:
        raise ImproperlyConfigured(f"broker_failover_strategy is {strategy!r}. It must be one of {', '.join(map(repr, STRATEGIES))}.")
    return Nodes([address_of(each, options) for each in BETWEEN.split(url)], shuffle=strategy == "shuffle")
