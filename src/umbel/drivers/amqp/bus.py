"""The bus on RabbitMQ: a topic exchange of our own. What Celery's exchanges carry is for the services that speak to Celery."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from umbel.bus import Bus, Heard, Subscription, matches
from umbel.drivers.amqp.channel import Channel, ChannelClosed, Pushed
from umbel.drivers.amqp.connection import Connection
from umbel.drivers.amqp.nodes import Nodes, nodes_of
from umbel.drivers.amqp.properties import Properties
from umbel.drivers.amqp.topology import bound
from umbel.exceptions import BrokerUnavailable
from umbel.forks import process

__all__ = ["AmqpBus"]

EXCHANGE = "umbel.bus"  # a topic exchange; a topic is a routing key
PATTERNS = ("*", "#")  # words that the exchange would take for a pattern


class AmqpBus(Bus):
    """Topics are routing keys of one exchange; a listener has a queue of its own connection."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._nodes, self._timeout = nodes_of(url, options or {}), timeout
        self._pid, self._lock = process.pid, threading.Lock()
        self._made: tuple[Connection, Channel] | None = None

    def publish(self, topic: str, body: bytes) -> None:
        deadline = time.monotonic() + self._timeout
        channel = self._channel(deadline)
        channel.do([lambda pika: pika.basic_publish(EXCHANGE, topic, body, Properties(delivery_mode=1))])
        channel.barrier(deadline)

    def _channel(self, deadline: float) -> Channel:
        if self._pid != process.pid:
            self._pid, self._lock = process.pid, threading.Lock()
            if self._made is not None:
                self._made[0].abandon()
                self._made = None
        with self._lock:
            if self._made is None or self._made[0].lost is not None or self._made[1].closed is not None:
                self._made = opened(self._nodes, "umbel bus", deadline)
            return self._made[1]

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return AmqpSubscription(self._nodes, topics, self._timeout)

    def close(self) -> None:
        made, self._made = self._made, None
        if made is None:
            return
        if self._pid == process.pid:
            made[0].close()
        else:
            made[0].abandon()


class AmqpSubscription(Subscription):
    """A connection with a queue that ends with it."""

    def __init__(self, nodes: Nodes, topics: Sequence[str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._topics, self._heard = tuple(topics), deque[Heard]()
        self._connection, channel = opened(nodes, "umbel listener", deadline)
        channel.on_pushed = self._hear
        queue = f"umbel.bus.{uuid4().hex}"
        try:
            channel.ask(lambda pika, done: pika.queue_declare(queue, exclusive=True, auto_delete=True, callback=done), deadline)
            channel.ask_all([bound(queue, EXCHANGE, key) for key in sorted({binding(topic) for topic in topics})], deadline)
            channel.ask(lambda pika, done: pika.basic_consume(queue, channel.on_message, auto_ack=True, callback=done), deadline)
        except ChannelClosed as exc:
            self._connection.drop()
            raise BrokerUnavailable(f"RabbitMQ refused to let us listen: {exc}.", refused=True) from exc
        except BaseException:
            self._connection.drop()
            raise

    def _hear(self, pushed: Pushed) -> None:
        if any(matches(pushed.routing_key, topic) for topic in self._topics):
            self._heard.append(Heard(pushed.routing_key, pushed.body))

    def receive(self, timeout: float) -> Heard | None:
        connection = self._connection
        with connection.changed:
            connection.arrived.wait_for(lambda: self._heard or connection.lost is not None, timeout)
            if self._heard:
                return self._heard.popleft()
            if connection.lost is not None:
                raise BrokerUnavailable(f"{connection.lost} Subscribe again.")
        return None

    def close(self) -> None:
        self._connection.close()


def opened(nodes: Nodes, name: str, deadline: float) -> tuple[Connection, Channel]:
    """Connect, and declare the exchange."""
    connection = nodes.connect(name=name, deadline=deadline)
    try:
        channel = connection.channel(deadline)
        channel.ask(lambda pika, done: pika.exchange_declare(EXCHANGE, "topic", durable=True, callback=done), deadline)
    except ChannelClosed as exc:
        connection.drop()
        raise BrokerUnavailable(f"RabbitMQ refused the exchange {EXCHANGE!r}: {exc}.", refused=True) from exc
    except BaseException:
        connection.drop()
        raise
    return connection, channel


def binding(topic: str) -> str:
    """Return the routing key that lets in all that *topic* stands for, and perhaps more: the rest is left out here."""
    plain = topic.removesuffix("*")
    if plain == topic and not any(word in PATTERNS for word in topic.split(".")):
        return topic
    whole = plain.rpartition(".")[0]
    return f"{whole}.#" if whole and not any(word in PATTERNS for word in whole.split(".")) else "#"
