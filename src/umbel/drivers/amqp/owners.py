"""The owners of this process: their connection, what they get of each queue, and what they claimed.

RabbitMQ knows no owners. What was pushed to a connection is its, and goes back to the queues at the moment at which it ends; so
the owners end with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from umbel.broker import OwnerLost
from umbel.drivers.amqp.channel import Act, ChannelClosed, Pushed
from umbel.drivers.amqp.connection import Connection
from umbel.drivers.amqp.intake import Intake
from umbel.drivers.amqp.message import Received, read
from umbel.drivers.amqp.nodes import Nodes
from umbel.exceptions import BrokerUnavailable

__all__ = ["Given", "Owners"]

logger = logging.getLogger("celery.worker.consumer")

CLEAN = 20_000  # messages given back here that are remembered
SILENT = 2  # heartbeats without an answer after which a connection is given up, as the server does; pika may take twice as long


class Given(NamedTuple):
    """Which delivery of which message was given back by us without having started."""

    queue: str
    id: str
    returned: int


class Owners:
    """What one process consumes, over one connection."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self._nodes, self._name = nodes, name
        self._opening = threading.Lock()
        self._connection: Connection | None = None
        self._owners: dict[str, dict[str, Intake]] = {}
        self._clean: dict[Given, None] = {}
        self._fence = 0
        self._answered_at = 0.0  # when the connection that consumes last said something

    # The connection

    def connection(self, deadline: float) -> Connection:
        """Return the connection that consumes; a new one if it was lost, and with it all owners."""
        with self._opening:
            found = self._connection
            if found is None or found.lost is not None:
                if found is not None:
                    found.drop()
                self._owners = {}
                found = self._connection = self._nodes.connect(name=self._name, deadline=deadline, on_tick=self._tick)
                self._answered_at = time.monotonic()
            return found

    def _tick(self) -> None:
        """Give back what lies here for too long: called by the connection's thread."""
        now = time.monotonic()
        for intakes in list(self._owners.values()):
            for intake in list(intakes.values()):
                with intake.channel.connection.changed:  # or the last one might be fetched while it is looked at
                    if intake.late(now):
                        self.empty(intake)

    def empty(self, intake: Intake) -> None:
        """End the consumers of *intake* and give back what nobody has claimed."""
        with intake.channel.connection.changed:
            if intake.channel.closed is None:  # else it has gone back
                intake.channel.do(self.give_back(intake, ()))

    def give_back(self, intake: Intake, tags: Sequence[int]) -> list[Act]:
        """Give *tags* and the buffer back in their order, and ask for nothing: who gives back wants less. Called under the lock."""
        for pushed in intake.buffer:
            self.remember(intake.queue, pushed)
        return intake.give_back(tags)

    def all_of(self, queue: str) -> list[Intake]:
        """Return what all owners have of *queue*."""
        return [intakes[queue] for intakes in list(self._owners.values()) if queue in intakes]

    def close(self) -> None:
        """Close the connection; what is claimed goes back."""
        with self._opening:
            found, self._connection, self._owners = self._connection, None, {}
        if found is not None:
            found.close()

    def abandon(self) -> None:
        """Close our end in a fork."""
        if self._connection is not None:
            self._connection.abandon()

    # Owners

    def add(self, owner: str, queues: Sequence[str], deadline: float) -> None:
        """Enter *owner*, with a channel for each queue."""
        connection = self.connection(deadline)
        for queue in queues:
            if queue not in self._owners.get(owner, ()):
                intake = Intake(connection.channel(deadline), queue)
                with connection.changed:
                    self._owners.setdefault(owner, {})[queue] = intake

    def find(self, owner: str, queue: str) -> Intake:
        """Return what *owner* has of *queue*.

        Raises:
            OwnerLost: nothing, or its connection or channel was lost.
        """
        intake = self._owners.get(owner, {}).get(queue)
        if intake is None:
            raise OwnerLost(owner)
        if intake.channel.closed is not None or intake.cancelled is not None:
            why = intake.channel.closed[1] if intake.channel.closed else "it was deleted"
            logger.error("RabbitMQ took the queue %r away from %s: %s. What was claimed there has gone back.", queue, owner, why)
            self.lose(owner)
            raise OwnerLost(owner)
        return intake

    def lose(self, owner: str) -> None:
        """Close the channels of *owner*, which gives back what they had."""
        for intake in self._owners.pop(owner, {}).values():
            for lane in intake.lanes():
                lane.channel.close()

    def ask(self, owner: str, queues: Sequence[str], deadline: float) -> bool:
        """Ask the server over the connection of *owner*; False: it is lost, at least for one of *queues*."""
        try:
            if not all(self._consumes(self.find(owner, queue), deadline) for queue in queues):
                self.lose(owner)
                return False
        except OwnerLost:
            return False
        except ChannelClosed:
            self.lose(owner)
            return False
        except BrokerUnavailable:
            connection = self._connection
            if connection is None:
                raise
            if connection.lost is None:
                if time.monotonic() - self._answered_at < SILENT * self._nodes.heartbeat:
                    raise
                connection.drop()
            return False
        self._answered_at = time.monotonic()
        return True

    @staticmethod
    def _consumes(intake: Intake, deadline: float) -> bool:
        """Ask for the queue: of one that was deleted and made anew at once, RabbitMQ 3.10 does not tell its consumers."""
        consumes = bool(intake.flows)
        found = intake.channel.ask(lambda channel, done: channel.queue_declare(intake.queue, passive=True, callback=done), deadline)
        return not consumes or found.consumer_count > 0 or not intake.flows

    def buffered(self, queue: str) -> int:
        """Return how many messages of *queue* lie here and are claimed by nobody."""
        return sum(len(intake.buffer) for intake in self.all_of(queue))

    def take_out(self, owner: str, queue: str) -> Intake | None:
        """Take *queue* from *owner*."""
        intakes = self._owners.get(owner, {})
        found = intakes.pop(queue, None)
        if not intakes:
            self._owners.pop(owner, None)
        return found

    # Claims

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        """Wait until something lies here, the connection is lost, or nothing would come."""
        intakes = [intake for queue in queues if (intake := self._owners.get(owner, {}).get(queue)) is not None]
        connection = self._connection
        if connection is None or len(intakes) < len(queues):
            return
        with connection.changed:
            connection.arrived.wait_for(
                lambda: (
                    connection.lost is not None or any(intake.buffer or intake.channel.closed or not intake.flows for intake in intakes)
                ),
                timeout,
            )

    def next_fence(self) -> int:
        """Return the microseconds of the clock, and more than the last time."""
        self._fence = max(self._fence + 1, time.time_ns() // 1000)
        return self._fence

    def remember(self, queue: str, pushed: Pushed, received: Received | None = None) -> None:
        """Remember that this goes back and had not started. It is known when it comes again, where the queue counts such returns."""
        message = received or read(pushed)
        if message.returned is not None:
            self._clean[Given(queue, message.id, message.returned + 1)] = None
            if len(self._clean) > CLEAN:
                del self._clean[next(iter(self._clean))]

    def is_clean(self, queue: str, message: Received) -> bool:
        """Answer whether it was we who gave this message back, and nobody had it meanwhile."""
        return message.returned is not None and Given(queue, message.id, message.returned) in self._clean
