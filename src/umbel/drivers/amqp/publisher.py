"""Publishing: batches with confirms, over a few connections that are shared by the threads of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from umbel.drivers.amqp.channel import Channel, ChannelClosed
from umbel.drivers.amqp.connection import Connection
from umbel.drivers.amqp.message import Sent
from umbel.drivers.amqp.nodes import Nodes
from umbel.exceptions import BrokerUnavailable

__all__ = ["Publisher"]

MOST = 4  # connections of one process; who finds none free waits for one
HEAD = 1000  # bytes, about, of a message beside its body
AT_ONCE = 2_000_000  # bytes of a batch between two waits for confirms


class Publisher:
    """Lends connections, each to one caller at a time."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self._nodes, self._name = nodes, name
        self._free: list[tuple[Connection, Channel]] = []
        self._all: set[Connection] = set()  # those that are lent, too
        self._places = threading.Semaphore(MOST)
        self._lock = threading.Lock()
        self._closed = 0  # how often it was closed: what was out then is not kept

    @contextmanager
    def connection(self, deadline: float) -> Iterator[tuple[Connection, Channel]]:
        """Lend a connection, and its channel with confirms.

        Raises:
            BrokerUnavailable: none is free until *deadline*, or there is no server.
        """
        if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise BrokerUnavailable(f"All {MOST} connections to RabbitMQ at {self._nodes.shown} are busy: it answers too slowly.")
        closed = self._closed
        try:
            lent = self._take() or self._open(deadline)
            try:
                yield lent
            finally:
                self._put_back(*lent, closed)
        finally:
            self._places.release()

    def _take(self) -> tuple[Connection, Channel] | None:
        with self._lock:
            while self._free:
                connection, channel = self._free.pop()
                if connection.lost is None and channel.closed is None:
                    return connection, channel
                self._all.discard(connection)
        return None

    def _open(self, deadline: float) -> tuple[Connection, Channel]:
        connection = self._nodes.connect(name=self._name, deadline=deadline)
        self._all.add(connection)
        try:
            channel = connection.channel(deadline)
            channel.with_confirms(deadline)
        except ChannelClosed as exc:
            connection.drop()
            raise BrokerUnavailable(f"RabbitMQ at {self._nodes.shown} gives no confirms: {exc}.", refused=True) from exc
        except BaseException:
            connection.drop()
            raise
        return connection, channel

    def _put_back(self, connection: Connection, channel: Channel, closed: int) -> None:
        usable = connection.lost is None and channel.closed is None and channel.broken is None and not channel.unconfirmed
        with self._lock:
            if usable and closed == self._closed:
                self._free.append((connection, channel))
                return
            self._all.discard(connection)
        connection.drop()

    def publish(self, batch: Sequence[Sent], channel: Channel, deadline: float, *, mandatory: bool = True) -> None:
        """Send *batch* and wait for its confirms; what is not *mandatory* may go nowhere.

        Raises:
            BrokerUnavailable: not all were confirmed.
        """
        part: list[Sent] = []
        size = 0
        for each in batch:
            part.append(each)
            size += len(each.body) + HEAD
            if size > AT_ONCE:
                send(channel, part, deadline, mandatory=mandatory)
                part, size = [], 0
        if part:
            send(channel, part, deadline, mandatory=mandatory)

    def close(self) -> None:
        """Close what is free, and what is lent when it comes back."""
        with self._lock:
            self._closed += 1
            free, self._free = self._free, []
        for connection, _ in free:
            connection.close()

    def abandon(self) -> None:
        """Close our ends in a fork."""
        for connection in list(self._all):
            connection.abandon()


def send(channel: Channel, batch: Sequence[Sent], deadline: float, *, mandatory: bool) -> None:
    """Send *batch* and wait for its confirms."""
    connection, count = channel.connection, len(batch)
    if connection.blocked is not None:
        try:
            connection.wait(lambda: connection.blocked is None, deadline, "waiting for the end of an alarm")
        except BrokerUnavailable as exc:
            raise BrokerUnavailable(*exc.args, unreachable=exc.unreachable) from exc  # nothing was sent
    channel.publish([(each.exchange, each.routing_key, each.properties, each.body) for each in batch], mandatory=mandatory)
    try:
        connection.wait(lambda: not channel.unconfirmed or channel.closed or channel.broken, deadline, "waiting for confirms")
    except BrokerUnavailable:
        connection.drop()  # its confirms would come among those of the next
        raise
    if channel.broken is not None:
        raise channel.refusal()
    if channel.closed is not None:
        raise BrokerUnavailable(f"RabbitMQ refused what was published: {channel.closed[1]}.", maybe_sent=True, refused=True)
    if channel.returned:
        code, text, routing_key = channel.returned[0]
        raise Unroutable(
            f"RabbitMQ could route nothing to {routing_key!r} ({code} {text}): its queue was deleted. The next call declares it anew.",
            maybe_sent=count > len(channel.returned),
        )
    if channel.nacked:
        raise BrokerUnavailable(
            f"RabbitMQ did not take {channel.nacked} of {count} messages (basic.nack): a queue is full (x-max-length with "
            "reject-publish), or has too few of its nodes. Look at `rabbitmqctl list_policies` and its log.",
            maybe_sent=count > channel.nacked,
        )  # fmt: skip


class Unroutable(BrokerUnavailable):
    """A queue is gone."""
