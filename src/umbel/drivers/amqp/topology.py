"""What exists in RabbitMQ: queues and exchanges as kombu declares them, the delays of Celery's layout, and places of our own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from umbel.drivers.amqp.channel import NOT_EQUAL, Channel, ChannelClosed, Question
from umbel.drivers.amqp.connection import Connection
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured

__all__ = ["Topology", "dead_of", "delayed", "parked_of", "started_of"]

logger = logging.getLogger("celery.worker.consumer")
LEVELS = 28
LONGEST = (1 << LEVELS) - 1  # seconds: 8.5 years; what is due later goes round again
DELIVERED = "celery_delayed_delivery"
KEPT_FOR_EVER = 1_000_000_000  # deliveries: each listing of letters is one
HANDED_OVER = 3000  # milliseconds in which a copy must have come to its only consumer; after them it goes back when that one is gone
UNUSED = 86_400_000  # milliseconds after which a queue of started tasks goes that nobody uses
QUORUM = {"x-queue-type": "quorum"}
SURE = {"x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once"}


def dead_of(queue: str) -> str:
    """Name the queue of dead letters."""
    return f"{queue}.umbel.dead"


def parked_of(queue: str) -> str:
    """Name the queue of parked messages."""
    return f"{queue}.umbel.parked"


def started_of(queue: str, owner: str) -> str:
    """Name the queue in which a suspect is kept while *owner* runs it."""
    return f"{queue}.umbel.started.{owner.rpartition(':')[2]}"


def delayed(queue: str, seconds: float) -> tuple[str, str]:
    """Return exchange and routing key that bring a message to *queue* after *seconds*, rounded up."""
    whole = min(max(1, math.ceil(seconds)), LONGEST)
    if any(word in {"*", "#"} for word in queue.split(".")):
        raise ImproperlyConfigured(f"Nothing can be delayed on the queue {queue!r}: '*' and '#' are patterns of RabbitMQ. Rename it.")
    # Celery begins at the highest level; this is where the message would first be kept, 27 exchanges further on.
    return f"celery_delayed_{whole.bit_length() - 1}", ".".join(f"{whole:0{LEVELS}b}") + f".{queue}"


class Topology:
    """Declares what is used, once.

    Args:
        arguments: of queues, by their names; under `""` those of all others.
    """

    def __init__(self, arguments: Mapping[str, Mapping[str, Any]]) -> None:
        self._arguments = arguments
        self._known: set[str] = set()

    def forget(self) -> None:
        """Declare all anew: something was deleted."""
        self._known.clear()

    def declare_work(self, connection: Connection, queue: str, deadline: float) -> None:
        """Declare a queue of tasks, unless it was."""
        if queue in self._known:
            return
        arguments = dict(self._arguments.get(queue, self._arguments.get("", QUORUM)))
        if "x-max-priority" in arguments:
            arguments.pop("x-queue-type", None)  # quorum queues have no such priorities
        made = self._declare(connection, queue, arguments, deadline)
        self._known.add(queue)
        if made:
            self._bind_work(connection, queue, deadline)

    def _bind_work(self, connection: Connection, queue: str, deadline: float) -> None:
        """Bind it to an exchange of its name, as kombu does; one of another kind stays as it is."""
        channel = connection.channel(deadline)
        try:
            channel.ask_all([exchange(queue, "direct"), bound(queue, queue, queue)], deadline)
        except ChannelClosed as exc:
            if exc.code != NOT_EQUAL:
                raise refused(queue, exc) from exc
        finally:
            channel.close()

    def declare_place(self, connection: Connection, place: str, deadline: float) -> None:
        """Declare a queue of dead letters or parked messages."""
        if place not in self._known:
            self._declare(connection, place, {**QUORUM, "x-delivery-limit": KEPT_FOR_EVER}, deadline)
            self._known.add(place)

    def declare_started(self, connection: Connection, place: str, queue: str, deadline: float) -> None:
        """Declare a queue that gives what its only consumer leaves behind to *queue*."""
        arguments = {
            **QUORUM, **SURE, "x-message-ttl": HANDED_OVER, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue,
            "x-expires": UNUSED,
        }  # fmt: skip
        self._declare(connection, place, arguments, deadline)

    def declare_delays(self, connection: Connection, queue: str, deadline: float) -> None:
        """Declare the queues of delays, and bind *queue* behind them."""
        if DELIVERED not in self._known:
            self._call(connection, [*delay_exchanges(), *delay_queues()], deadline)
            self._known.add(DELIVERED)
        known = f"{DELIVERED} {queue}"
        if known not in self._known:
            # As many stars as there are bits: with Celery's `#` what is for "high.celery" would come to "celery", too.
            self._call(connection, [bound(queue, DELIVERED, "*." * LEVELS + queue)], deadline)
            self._known.add(known)

    def _call(self, connection: Connection, calls: list[Question], deadline: float) -> None:
        channel = connection.channel(deadline)
        try:
            channel.ask_all(calls, deadline)
        except ChannelClosed as exc:
            raise refused("celery_delayed_*", exc) from exc
        finally:
            channel.close()

    def _declare(self, connection: Connection, queue: str, arguments: Mapping[str, Any], deadline: float) -> bool:
        """Declare a durable queue; False: there is one of another kind, which is used as it is."""
        channel = connection.channel(deadline)
        try:
            channel.ask(declared(queue, arguments), deadline)
        except ChannelClosed as exc:
            if exc.code != NOT_EQUAL:
                raise refused(queue, exc) from exc
            logger.warning("The queue %r is used as it is: it was declared otherwise than the settings say (%s).", queue, exc)
            return False
        finally:
            channel.close()
        return True


def delay_exchanges() -> list[Question]:
    """Return the calls that declare the exchanges of all delays."""
    names = [f"celery_delayed_{level}" for level in reversed(range(LEVELS))]
    return [exchange(name, "topic") for name in (*names, DELIVERED)]


def delay_queues() -> list[Question]:
    """Return the calls that declare and bind the queues of all delays."""
    calls: list[Question] = []
    for level in reversed(range(LEVELS)):
        name, below = f"celery_delayed_{level}", f"celery_delayed_{level - 1}" if level else DELIVERED
        arguments = {**QUORUM, **SURE, "x-message-ttl": (1 << level) * 1000, "x-dead-letter-exchange": below}
        before = "*." * (LEVELS - 1 - level)
        calls += [
            declared(name, arguments),
            bound(name, name, f"{before}1.#"),
            passed_on(name, below, f"{before}0.#"),
        ]
    return calls


def count_of(channel: Channel, queue: str, deadline: float) -> int:
    """Return how many messages of *queue* wait. ChannelClosed: there is none of this name."""
    return int(channel.ask(lambda c, done: c.queue_declare(queue, passive=True, callback=done), deadline).message_count)


def refused(queue: str, exc: ChannelClosed) -> BrokerUnavailable:
    """Return the error of a declaration."""
    return BrokerUnavailable(f"RabbitMQ refused to declare {queue!r}: {exc}.", refused=True)


def declared(queue: str, arguments: Mapping[str, Any]) -> Question:
    """Return what declares a durable queue."""
    return lambda channel, done: channel.queue_declare(queue, durable=True, arguments=dict(arguments), callback=done)


def exchange(name: str, kind: str) -> Question:
    """Return what declares a durable exchange."""
    return lambda channel, done: channel.exchange_declare(name, kind, durable=True, callback=done)


def bound(queue: str, source: str, routing_key: str) -> Question:
    """Return what binds a queue to an exchange."""
    return lambda channel, done: channel.queue_bind(queue, source, routing_key, callback=done)


def passed_on(source: str, destination: str, routing_key: str) -> Question:
    """Return what binds an exchange to another."""
    return lambda channel, done: channel.exchange_bind(destination, source, routing_key, callback=done)
